"""Far more at once than can be worked off: memory stays bounded, answers are given or refused at once, nothing is lost.

A server that cannot publish its answers (503) is in ``test_inference.py``, the bounds themselves in the unit tests of
intake, engine and sink.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.integration.line import Line, Process, wait_until

from lifelong.config.shared import KafkaSettings
from lifelong.contracts import topics
from lifelong.contracts.codec import decode, encode
from lifelong.contracts.events import Message, Observation
from lifelong.contracts.requests import Output, Request
from lifelong.stream.kafka import KafkaSink

pytestmark = [pytest.mark.kafka]

NUM_EVENTS = 2000
MAX_PENDING = 128
MAX_REQUESTS = 8
NUM_ASKERS = 40
NUM_FROM_TOPIC = 60
MIB = 1024 * 1024
# Torch, and what it keeps of memory that it has used once. Kept without bound, the burst would still fit in here: what
# tells are the counts below.
HEADROOM = 300 * MIB


@pytest.fixture
def line(tmp_path: Path, kafka_settings: KafkaSettings, redis_url: str, fresh_line: str) -> Line:
    return Line(tmp_path, kafka_settings, redis_url, fresh_line)


class Watch:
    """The most that was ever seen of each process while it was watched."""

    def __init__(self, processes: dict[str, Process]) -> None:
        self._processes = processes
        self.before = {name: process.rss() for name, process in processes.items()}
        self.most = dict(self.before)
        self.lag: Counter[str] = Counter()
        self.most_pending = 0.0

    def look(self) -> None:
        for name, process in self._processes.items():
            self.most[name] = max(self.most[name], process.rss())
        for name in ("collector", "trainer"):
            for unit in ("records", "seconds"):
                seen = self._processes[name].metric(f"lifelong_lag_{unit}")
                self.lag[f"{name} {unit}"] = max(self.lag[f"{name} {unit}"], seen)
        self.most_pending = max(self.most_pending, self._processes["trainer"].metric("lifelong_pending_samples"))


class Askers:
    """So many who each ask again as soon as they have an answer or a refusal."""

    def __init__(self, url: str, line: str) -> None:
        self._url, self._line = url, line
        self.stop = threading.Event()
        self.answers: list[httpx.Response] = []
        self.failures: list[Exception] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(NUM_ASKERS)]

    def __enter__(self) -> Askers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(120)

    def statuses(self) -> Counter[int]:
        return Counter(answer.status_code for answer in self.answers)

    def _ask(self) -> None:
        body = {"model": self._line, "messages": [{"role": "user", "content": "What is it?"}], "max_tokens": 16}
        with httpx.Client(timeout=60) as client:
            while not self.stop.is_set():
                try:
                    answer = client.post(self._url + "/v1/chat/completions", json=body)
                except httpx.HTTPError as error:
                    self.failures.append(error)
                    return
                self.answers.append(answer)
                if answer.status_code != 200:
                    self.stop.wait(float(answer.headers["retry-after"]))


@contextmanager
def all_ready(line: Line) -> Iterator[dict[str, Process]]:
    with (
        line.process("collector", COLLECTOR__MAX_POLL_RECORDS="100") as collector,
        line.process("trainer", TRAINER__BATCH_SIZE="64", TRAINER__MAX_PENDING_SAMPLES=str(MAX_PENDING)) as trainer,
        line.process("inference", ENGINE__MAX_REQUESTS=str(MAX_REQUESTS)) as inference,
    ):
        processes = {"collector": collector, "trainer": trainer, "inference": inference}
        for name, process in processes.items():
            wait_until(process.is_ready, f"{name} is ready", process.is_running)
        yield processes


def ask_by_topic(line: Line) -> set[str]:
    sink = KafkaSink(line.kafka)
    for number in range(NUM_FROM_TOPIC):
        request = Request(id=f"r{number}", messages=(Message("user", f"What is {number}?"),), max_tokens=4)
        sink.send(topics.REQUESTS.name, encode(request), key=request.id.encode())
    sink.flush()
    sink.close()
    return {f"r{number}" for number in range(NUM_FROM_TOPIC)}


def test_a_burst_of_everything_at_once(line: Line) -> None:
    with all_ready(line) as processes:
        server = processes["inference"]
        # Once around first, so that what is only loaded for the first event is there before memory is measured.
        line.publish([(f"warm{n}", Observation(task="parity", input=str(n), label="odd")) for n in range(8)])
        wait_until(lambda: sum(line.learnt().values()) == 8, "the first are learnt")
        watch = Watch(processes)
        asked = ask_by_topic(line)
        line.publish(
            [
                (f"e{n}", Observation(task="parity", input=f"number {n}", label="odd" if n % 2 else "even"))
                for n in range(NUM_EVENTS)
            ]
        )
        with Askers(server.url, line.name) as askers:
            started = time.monotonic()
            while askers.statuses()[429] < 5 or askers.statuses()[200] < 20 or watch.lag["trainer records"] == 0:
                watch.look()
                assert time.monotonic() - started < 120, (askers.statuses(), watch.lag)
                assert server.health()[0] == 200

        def is_done() -> bool:
            watch.look()
            counts = line.counts()
            return sum(counts[fate] for fate in ("trained", "held_out", "superseded", "skipped", "rejected")) == (
                NUM_EVENTS + 8
            )

        wait_until(is_done, "all is learnt", lambda: all(process.is_running() for process in processes.values()))
        wait_until(lambda: processes["trainer"].metric("lifelong_lag_records") == 0, "no lag is left")
        wait_until(lambda: asked <= {o.request_id for o in outputs(line)}, "all from the topic are answered")

    assert askers.failures == []
    assert set(askers.statuses()) == {200, 429}
    refused = next(answer for answer in askers.answers if answer.status_code == 429)
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert float(refused.headers["retry-after"]) > 0

    assert watch.lag["collector records"] > 0
    assert watch.lag["trainer seconds"] > 0
    assert 0 < watch.most_pending <= MAX_PENDING
    grown = {name: (watch.most[name] - before) // MIB for name, before in watch.before.items()}
    assert all(watch.most[name] <= before + HEADROOM for name, before in watch.before.items()), grown

    outcomes = Counter(account.outcome for account in line.accounts())
    assert outcomes == {"sample": NUM_EVENTS + 8}
    assert line.counts()["sample"] == NUM_EVENTS + 8
    assert set(line.learnt().values()) == {1}


def outputs(line: Line) -> list[Output]:
    return [decode(record.value, Output) for record in line.read(topics.OUTPUTS.name)]
