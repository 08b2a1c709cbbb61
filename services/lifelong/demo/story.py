"""The demonstration, step by step. Everything goes through the public client, topics and metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lifelong.client import Answer, Client
from lifelong.config.shared import KafkaSettings
from lifelong.contracts import topics
from lifelong.contracts.codec import decode
from lifelong.contracts.events import Document, EventData, Feedback, Message
from lifelong.contracts.versions import VersionEvent, parse_version_key
from lifelong.demo.facts import BrowserFact, choose
from lifelong.demo.summary import Asked, Summary
from lifelong.errors import LifelongError, OverloadedError, RequestError, UnreachableError
from lifelong.stream.kafka import KafkaSink, KafkaSource

Say = Callable[[str], None]

ANSWER_TOKENS = 24
_PATIENCE_SECONDS = 120.0
_STUDENT_SECONDS = 90.0
# What may become of a sample that a version has taken in; see the counts of a manifest.
_FATES = ("trained", "held_out", "rejected", "superseded", "skipped")


class DemoError(LifelongError):
    """The demonstration cannot go on; says what it waited for and where to look."""


@dataclass(frozen=True)
class Addresses:
    kafka: str
    http: str
    metrics: dict[str, str]
    """Process → address of its metrics."""


class Versions:
    """What the versions topic says, as it comes."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._source = KafkaSource(kafka, [topics.VERSIONS.name])
        self._source.seek({})
        self.trained = 0
        """Samples of the main line that a committed version has taken in, whatever became of them."""
        self.promoted = 0
        self.rejected = 0
        self.student: str | None = None

    def poll(self, line: str) -> Iterator[str]:
        """What is new, in words."""
        for record in self._source.poll(0.2):
            if record.value is None:
                continue
            event = decode(record.value, VersionEvent)
            if event.line != line:
                if event.change == "promoted":
                    self.student = f"{event.line}@{event.number}"
                    yield f"student {self.student} distilled"
                continue
            counts = event.counts
            taken = sum(counts.get(fate, 0) for fate in _FATES)
            self.trained = max(self.trained, taken)
            if event.change == "promoted":
                self.promoted += 1
                yield f"version {event.number} promoted: {taken} samples so far"
            elif event.change == "rejected":
                self.rejected += 1
                yield f"version {event.number} rejected: {event.verdict.reason if event.verdict else 'no reason'}"

    def close(self) -> None:
        self._source.close()


class Story:
    def __init__(
        self, addresses: Addresses, say: Say, *, num_facts: int, num_documents: int, line: str = "lifelong"
    ) -> None:
        facts = choose(num_facts + 1 + num_documents)
        self._taught, self._lone, self._read = facts[:num_facts], facts[num_facts], facts[num_facts + 1 :]
        self._addresses = addresses
        self._say = say
        self._line = line
        self._kafka = KafkaSettings(bootstrap_servers=addresses.kafka)
        self._client = Client(kafka=self._kafka, http=addresses.http, source="lifelong.demo")
        self._versions = Versions(self._kafka)
        self.summary = Summary(
            asked=[Asked(fact.question, fact.answer) for fact in self._taught], metrics=addresses.metrics
        )

    def close(self) -> None:
        self._client.close()
        self._versions.close()

    def tell(self) -> Summary:
        self._ask_before()
        self._publish_stream()
        self._ask_memory_only()
        self._wait_until_learned(len(self._taught))
        self._ask_after()
        self._teach_a_lone_fact()
        self._look_around()
        return self.summary

    # -- the steps ---------------------------------------------------------------------------------------------------

    def _ask_before(self) -> None:
        self._say("[bold]1. What the model answers before[/bold] (memory off)")
        for asked, fact in zip(self.summary.asked, self._taught, strict=True):
            answer = self._ask(fact.question, memory=False, max_tokens=ANSWER_TOKENS)
            self.summary.version_before = answer.version
            asked.before, asked.knew_before = answer.text, fact.is_told_by(answer.text)
            self._show(fact, answer.text, asked.knew_before)
        self.summary.weights_before = self._weights()

    def _publish_stream(self) -> None:
        self._say("\n[bold]2. What is published[/bold]: corrections, documents, and one broken event")
        corrections: list[EventData] = [_correction(fact) for fact in self._taught]
        documents: list[EventData] = [Document(text=fact.text, url=fact.url) for fact in self._read]
        self._client.publish(*documents, *corrections)
        self.summary.events_published += len(documents) + len(corrections)
        sink = KafkaSink(self._kafka)
        try:
            sink.send(topics.EVENTS.name, b"\xff\xfe this is no event")
            sink.flush()
        finally:
            sink.close()
        self._say(
            f"   {len(corrections)} corrections, {len(documents)} documents, 1 broken event → {topics.EVENTS.name}"
        )

    def _ask_memory_only(self) -> None:
        self._say("\n[bold]3. What memory alone gives[/bold]: the same weights, seconds later")
        # The collector has to see the events first; the last correction stands for all.
        self._until(
            "the corrections are in memory",
            lambda: self._ask(self._taught[-1].question, model=f"{self._line}@0", max_tokens=1).memories,
            timeout_seconds=60,
        )
        for asked, fact in zip(self.summary.asked, self._taught, strict=True):
            answer = self._ask(fact.question, model=f"{self._line}@0", max_tokens=ANSWER_TOKENS)
            asked.memory_only, asked.knew_from_memory = answer.text, fact.is_told_by(answer.text)
            self._show(fact, answer.text, asked.knew_from_memory)

    def _wait_until_learned(self, num_samples: int) -> None:
        self._say("\n[bold]4. The trainer learns[/bold]")
        start = time.monotonic()
        wanted = self.summary.events_published
        self._until("all samples are learned", lambda: self._versions.trained >= wanted, timeout_seconds=900)
        self._wait_for_live()
        self.summary.seconds_to_learn_all = round(time.monotonic() - start, 2)

    def _ask_after(self) -> None:
        self._say("\n[bold]5. What the model answers now[/bold] (memory off: this is in the weights)")
        for asked, fact in zip(self.summary.asked, self._taught, strict=True):
            answer = self._ask(fact.question, memory=False, max_tokens=ANSWER_TOKENS)
            self.summary.version_after = answer.version
            asked.after, asked.knows_after = answer.text, fact.is_told_by(answer.text)
            self._show(fact, answer.text, asked.knows_after)
        self.summary.weights_after = self._weights()

    def _teach_a_lone_fact(self) -> None:
        self._say("\n[bold]6. A lone event to the idle system[/bold]")
        fact = self._lone
        before = self._ask(fact.question, memory=False, max_tokens=ANSWER_TOKENS)
        self._show(fact, before.text, fact.is_told_by(before.text))
        published = time.time()
        self._client.publish(_correction(fact), event_time=published)
        self.summary.events_published += 1

        def is_served() -> bool:
            # Asking again and again would take the cores from the trainer.
            return bool((self._health()["newest_event_time"] or 0) >= published - 0.001)

        self._until("a version that learned it serves", is_served, timeout_seconds=300)
        self.summary.lone_answer = self._ask(fact.question, memory=False, max_tokens=ANSWER_TOKENS).text
        self.summary.freshness_seconds = round(time.time() - published, 2)
        self.summary.lone_right = fact.is_told_by(self.summary.lone_answer)
        self._show(fact, self.summary.lone_answer, self.summary.lone_right)
        self._say(
            f"   freshness, event to first answer from a version that learned it: {self.summary.freshness_seconds} s"
        )

    def _look_around(self) -> None:
        self.summary.versions_promoted = self._versions.promoted
        self.summary.versions_rejected = self._versions.rejected
        self.summary.samples_trained = self._versions.trained
        self.summary.dead_letters = self._dead_letters()
        self._say("\n[bold]7. The rest[/bold]")
        for reason, number in self.summary.dead_letters.items():
            self._say(f"   dead letters: {number} × {reason} → {topics.EVENTS_DLQ.name}")
        self._ask_the_student()
        for process, address in self._addresses.metrics.items():
            self._say(f"   metrics of {process}: {address}")

    def _health(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return self._client.health()
            except UnreachableError as error:
                if time.monotonic() > deadline:
                    raise DemoError(f"no answer from {self._addresses.http}: {error}") from error
                time.sleep(0.5)

    def _ask(self, question: str, **how: Any) -> Answer:
        """Patiently: a server that was killed and started again has missed nothing."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return self._client.ask(question, **how)
            except (UnreachableError, OverloadedError, RequestError) as error:
                refused = isinstance(error, RequestError) and error.status < 500
                if refused or time.monotonic() > deadline:
                    raise DemoError(f"no answer from {self._addresses.http}: {error}") from error
                time.sleep(0.5)

    def _ask_the_student(self) -> None:
        """It learns from what the others leave over; a busy machine may have left nothing yet."""
        try:
            self._until("there is a student", lambda: self._versions.student, timeout_seconds=_STUDENT_SECONDS)
        except DemoError:
            self._say("   the distiller has not had a round yet")
            return
        assert self._versions.student is not None
        self.summary.student = self._versions.student
        question = self._taught[0].question
        answer = self._ask(question, model=self._versions.student, memory=False, max_tokens=ANSWER_TOKENS)
        self.summary.student_answer = answer.text
        self._say(f"   student {answer.version} answers: {answer.text!r}")

    # -- what the steps share ----------------------------------------------------------------------------------------

    def _show(self, fact: BrowserFact, answer: str, right: bool) -> None:
        mark = "[green]✓[/green]" if right else "[red]✗[/red]"
        self._say(f"   {mark} {fact.question}\n       [cyan]{' '.join(answer.split())!r}[/cyan] (right: {fact.answer})")

    def _until(self, what: str, condition: Callable[[], Any], timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            for line in self._versions.poll(self._line):
                self._say(f"   {line}")
            if time.monotonic() > deadline:
                raise DemoError(f"waited {timeout_seconds:.0f} s until {what}; see the logs beside the data")

    def _wait_for_live(self) -> None:
        """Until the server answers with the newest version that was promoted."""

        def caught_up() -> bool:
            health = self._health()
            return bool(parse_version_key(health["version"])[1] == health["pointer"])

        self._until("the newest version is served", caught_up, timeout_seconds=60)

    def _weights(self) -> str:
        return str(self._health()["weights_sha256"])

    def _dead_letters(self) -> dict[str, int]:
        source = KafkaSource(self._kafka, [topics.EVENTS_DLQ.name])
        try:
            source.seek({})
            reasons: dict[str, int] = {}
            while records := source.poll(1.0):
                for record in records:
                    reason = dict(record.headers)[topics.DLQ_HEADER_REASON].decode()
                    reasons[reason] = reasons.get(reason, 0) + 1
            return reasons
        finally:
            source.close()


def _correction(fact: BrowserFact) -> Feedback:
    return Feedback(messages=(Message("user", fact.question),), correction=fact.answer)
