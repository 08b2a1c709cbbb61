"""The collector on its sockets: events from Kafka, samples to Kafka, memory and what was seen in Redis.

A poll is worked off whole: memory first, then samples and dead letters, and only when the broker has all of them is the
position committed. Whatever is cut off in between is done again, with the same result. If Redis was lost, what it knew
is made again first (see ``rebuild``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import msgspec

from lifelong.collector.answers import AnswerStore, RedisAnswers, compare
from lifelong.collector.config import Settings
from lifelong.collector.dataref import Fetcher
from lifelong.collector.dedupe import SeenStore
from lifelong.collector.dedupe_redis import RedisSeen
from lifelong.collector.handler import Handled, Handler
from lifelong.collector.joins import HalfStore, RedisHalves
from lifelong.collector.knowledge import KnowledgeLostError, Proof, RedisKnowledge
from lifelong.collector.observed import Observed
from lifelong.collector.patience import Patience, Stopped
from lifelong.collector.rebuild import Rebuilder
from lifelong.contracts import topics
from lifelong.contracts.codec import Fetch, encode
from lifelong.contracts.samples import SampleRecord
from lifelong.errors import DecodeError, StreamGapError
from lifelong.memory.base import MemoryEntry, MemoryStore
from lifelong.memory.redis import RedisMemory
from lifelong.runtime.clock import Clock, SystemClock
from lifelong.runtime.health import AppWithHealth, Health, HealthServer
from lifelong.runtime.metrics import Metrics
from lifelong.stream.admin import committed_positions
from lifelong.stream.base import GroupSource, Partition, Record, Sink
from lifelong.stream.dead_letters import DeadLetters
from lifelong.stream.kafka import KafkaGroupSource, KafkaSink, KafkaSource

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 60.0

# What was compressed on its way here may be too large to be sent on; so much of it always fits.
_MAX_LETTER_BYTES = topics.MAX_MESSAGE_BYTES - 1024 * 1024
_CUT_LETTER_BYTES = 1024 * 1024


def group_id(line: str) -> str:
    return f"lifelong.collector.{line}"


class CollectorApp:
    """What is given may be in memory: so simulations run the same code as the process.

    Args:
        rebuilder: ``None``: the stores are never lost.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        source: GroupSource,
        sink: Sink,
        memory: MemoryStore,
        seen: SeenStore,
        halves: HalfStore,
        metrics: Metrics,
        health: Health,
        clock: Clock,
        fetch: Fetch | None = None,
        rebuilder: Rebuilder | None = None,
        answers: AnswerStore | None = None,
    ) -> None:
        self._settings = settings.collector
        self._source = source
        self._sink = sink
        self._memory = memory
        self._health = health
        self._clock = clock
        self._handler = Handler(settings.collector, seen=seen, halves=halves, fetch=fetch)
        self._letters = DeadLetters(sink, "collector", metrics, settings.collector.dead_letter_limit)
        self._observed = Observed(metrics, clock)
        self._patience = Patience(health, settings.collector.max_backoff_seconds)
        self._rebuilder = rebuilder
        self._answers = answers
        self._generation = -1
        # Partition → first source offset that no account of ours covers.
        self._covered: dict[int, int] = {}
        self._swept_at = clock.monotonic()
        self._line = settings.line.name
        health.details = self._details

    def run(self, stop: threading.Event) -> None:
        """
        Raises:
            StreamGapError: retention has deleted events that were never read, and ``on_gap`` is ``stop``.
            TooManyDeadLettersError: nearly everything is refused.
        """
        try:
            while not stop.is_set():
                self.turn(stop)
        except Stopped:
            # What was begun is not committed, so whoever comes next does it again.
            return

    def close(self) -> None:
        self._source.close()
        self._sink.close()

    def turn(self, stop: threading.Event) -> int:
        """One poll, worked off; the number of records in it.

        Raises:
            Stopped: told to stop while a server was away.
        """
        token = self._token(stop)
        records = self._ours(self._poll(stop))
        if records:
            self._work_off(records, token, stop)
        self._observed.waiting(self._patience.insist(self._source.pending, stop))
        self._sweep(stop)
        return len(records)

    def _poll(self, stop: threading.Event) -> Sequence[Record]:
        wait, most = self._settings.poll_seconds, self._settings.max_poll_records
        try:
            return self._patience.insist(lambda: self._source.poll(wait, most), stop)
        except StreamGapError as gap:
            if gap.wanted >= gap.first:
                raise
            if self._settings.on_gap == "stop":
                log.error(
                    "%d events of partition %d are gone: to go on at offset %d and account for them as lost, start "
                    "once with LIFELONG_COLLECTOR__ON_GAP=skip",
                    gap.first - gap.wanted,
                    gap.partition,
                    gap.first,
                )
                raise
            self._give_up(gap.partition, gap.first, stop)
            return []

    def _give_up(self, partition: int, first: int, stop: threading.Event) -> None:
        """What is not there any more is accounted for as lost, so that whoever reads the accounts can go on."""
        self._note_assignment()
        covered = self._covered.get(partition, first)
        if covered < first:
            detail = "deleted by retention before it was read"
            account = SampleRecord(topics.EVENTS.name, partition, covered, first, "lost", detail=detail)
            self._patience.insist(lambda: self._publish_lost(account), stop)
            self._covered[partition] = first
            self._observed.lost(first - covered)
            log.error("partition %d: events from %d up to before %d are lost, going on", partition, covered, first)
        at = Partition(topics.EVENTS.name, partition)
        self._patience.insist(lambda: self._source.commit({at: first}), stop)
        self._source.skip_to(at, first)

    def _publish_lost(self, account: SampleRecord) -> None:
        self._sink.send(topics.SAMPLES.name, encode(account), partition=account.source_partition)
        self._sink.flush()

    def _token(self, stop: threading.Event) -> str | None:
        rebuilder = self._rebuilder
        return None if rebuilder is None else self._patience.insist(lambda: rebuilder.token(stop), stop)

    def _is_still(self, token: str | None, stop: threading.Event) -> bool:
        rebuilder = self._rebuilder
        if rebuilder is None or token is None:
            return True
        known = token
        return self._patience.insist(lambda: rebuilder.is_still(known), stop)

    def _ours(self, records: Sequence[Record]) -> list[Record]:
        """Those of partitions that we have, and that are not covered yet."""
        self._note_assignment()
        return [record for record in records if record.offset >= self._covered.get(record.partition, record.offset + 1)]

    def _note_assignment(self) -> None:
        if self._source.generation != self._generation:
            self._generation = self._source.generation
            # What was given up and taken again goes on where it was committed, maybe by another in the meantime.
            self._covered = {p.number: at or 0 for p, at in self._source.assigned().items()}
            self._health.ready = True
            log.info("partitions %s", sorted(self._covered) or "none: others have them")

    def _work_off(self, records: Sequence[Record], token: str | None, stop: threading.Event) -> None:
        started = self._clock.monotonic()
        while (handled := self._written(records, token, stop)) is None:
            token = self._token(stop)
        for one in handled:
            self._covered[one.record.source_partition] = one.record.to_offset
        self._observed.collected(records, handled, self._handler.masked, self._clock.monotonic() - started)
        if self._answers is not None and (labels := [one.labelled for one in handled if one.labelled is not None]):
            self._observed.compared(compare(self._answers, labels))
        positions = {Partition(r.topic, r.partition): self._covered[r.partition] for r in records}
        self._patience.insist(lambda: self._source.commit(positions), stop)

    def _written(self, records: Sequence[Record], token: str | None, stop: threading.Event) -> list[Handled] | None:
        """What became of them, all of it written; ``None``: Redis was lost meanwhile, so it has to be done again."""
        try:
            handled = self._patience.insist(lambda: self._handler.handle(records, self._covered), stop)
        except KnowledgeLostError:
            return None
        # A half whose other half was lost would be taken for the first; what is out cannot be taken back.
        if not self._is_still(token, stop):
            return None
        self._patience.insist(lambda: self._remember(handled), stop)
        self._patience.insist(lambda: self._publish(records, handled), stop)
        # Committed without being in memory, it would never come there.
        return handled if self._is_still(token, stop) else None

    def _details(self) -> dict[str, object]:
        progress = self._rebuilder.progress if self._rebuilder else None
        return {"line": self._line, "covered": dict(self._covered), "rebuilding": progress}

    def _remember(self, handled: Sequence[Handled]) -> None:
        """In the order of the events: what was published after a request to forget is not meant by it."""
        entries: list[MemoryEntry] = []
        for one in handled:
            entries += one.memory
            if (forget := one.record.forget) is not None:
                self._memory.put(entries)
                entries = []
                self._memory.forget(event_ids=forget.event_ids, user=forget.user)
        if entries:
            self._memory.put(entries)

    def _publish(self, records: Sequence[Record], handled: Sequence[Handled]) -> None:
        for record, one in zip(records, handled, strict=True):
            if one.refusal is None:
                self._letters.note_good()
            else:
                self._letters.send(*_letter(record, one.refusal))
            self._sink.send(topics.SAMPLES.name, encode(one.record), partition=record.partition)
        self._sink.flush()

    def _sweep(self, stop: threading.Event) -> None:
        if self._clock.monotonic() - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = self._clock.monotonic()
            self._patience.insist(lambda: self._memory.sweep(self._clock.now()), stop)


def _letter(record: Record, refusal: DecodeError) -> tuple[Record, DecodeError]:
    """The record as it came, or its beginning if it would not fit through the producer."""
    num_bytes = len(record.key or b"") + len(record.value or b"")
    num_bytes += sum(len(name) + len(text or b"") for name, text in record.headers)
    if num_bytes <= _MAX_LETTER_BYTES:
        return record, refusal
    cut = msgspec.structs.replace(
        record, key=(record.key or b"")[:1024], value=(record.value or b"")[:_CUT_LETTER_BYTES], headers=()
    )
    return cut, DecodeError(refusal.reason, f"{refusal.detail}; here without headers, and cut to its beginning")


def build(settings: Settings) -> AppWithHealth:
    metrics, health = Metrics("collector"), Health("collector")
    server = HealthServer(settings.metrics, metrics, health)
    return AppWithHealth(connect(settings, metrics, health), server)


def connect(settings: Settings, metrics: Metrics, health: Health) -> CollectorApp:
    """The app on the servers that the settings name."""
    own, line, url, clock = settings.collector, settings.line.name, settings.redis.url, SystemClock()
    fetch = None
    if own.dataref_allowed_prefixes:
        fetch = Fetcher(
            own.dataref_allowed_prefixes, max_bytes=own.max_event_bytes, timeout_seconds=own.dataref_timeout_seconds
        )
    memory, knowledge = RedisMemory(url, line), RedisKnowledge(url, line)

    def seen(proof: Proof) -> RedisSeen:
        return RedisSeen(
            url,
            line,
            window_seconds=own.dedupe_window_seconds,
            slack_seconds=own.dedupe_slack_seconds,
            near_threshold=own.near_threshold,
            proof=proof,
        )

    halves = RedisHalves(url, line, window_seconds=own.join_window_seconds)
    return CollectorApp(
        settings,
        source=KafkaGroupSource(settings.kafka, [topics.EVENTS.name], group_id(line)),
        sink=KafkaSink(settings.kafka),
        memory=memory,
        seen=seen(knowledge.proof),
        halves=halves,
        metrics=metrics,
        health=health,
        clock=clock,
        fetch=fetch,
        rebuilder=Rebuilder(
            Handler(own, seen=seen(knowledge.proof_of_telling), halves=halves, fetch=fetch),
            history=lambda: KafkaSource(settings.kafka, [topics.EVENTS.name]),
            committed=lambda: committed_positions(settings.kafka, group_id(line)),
            memory=memory,
            knowledge=knowledge,
            clock=clock,
        ),
        answers=RedisAnswers(url, line),
    )
