"""The collector on its sockets: events from Kafka, samples to Kafka, memory and what was seen in Redis.

A poll is worked off whole: memory first, then samples and dead letters, and only when the broker has all of them is the
position committed. Whatever is cut off in between is done again, with the same result.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import msgspec

from lifelong.collector.config import Settings
from lifelong.collector.dataref import Fetcher
from lifelong.collector.dedupe import SeenStore
from lifelong.collector.dedupe_redis import RedisSeen
from lifelong.collector.handler import Handled, Handler
from lifelong.collector.joins import HalfStore, RedisHalves
from lifelong.collector.observed import Observed
from lifelong.collector.patience import Patience, Stopped
from lifelong.contracts import topics
from lifelong.contracts.codec import Fetch, encode
from lifelong.errors import DecodeError
from lifelong.memory.base import MemoryEntry, MemoryStore
from lifelong.memory.redis import RedisMemory
from lifelong.runtime.clock import Clock, SystemClock
from lifelong.runtime.health import AppWithHealth, Health, HealthServer
from lifelong.runtime.metrics import Metrics
from lifelong.stream.base import GroupSource, Partition, Record, Sink
from lifelong.stream.dead_letters import DeadLetters
from lifelong.stream.kafka import KafkaGroupSource, KafkaSink

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 60.0

# What was compressed on its way here may be too large to be sent on; so much of it always fits.
_MAX_LETTER_BYTES = topics.MAX_MESSAGE_BYTES - 1024 * 1024
_CUT_LETTER_BYTES = 1024 * 1024


def group_id(line: str) -> str:
    return f"lifelong.collector.{line}"


class CollectorApp:
    """What is given may be in memory: so simulations run the same code as the process."""

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
        self._generation = -1
        # Partition → first source offset that no account of ours covers.
        self._covered: dict[int, int] = {}
        self._swept_at = clock.monotonic()
        health.details = lambda: {"line": settings.line.name, "covered": dict(self._covered)}

    def run(self, stop: threading.Event) -> None:
        """
        Raises:
            StreamGapError: retention has deleted events that were never read.
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
        wait, most = self._settings.poll_seconds, self._settings.max_poll_records
        polled = self._patience.insist(lambda: self._source.poll(wait, most), stop)
        records = self._ours(polled)
        if records:
            self._work_off(records, stop)
        self._observed.waiting(self._patience.insist(self._source.pending, stop))
        self._sweep(stop)
        return len(records)

    def _ours(self, records: Sequence[Record]) -> list[Record]:
        """Those of partitions that we have, and that are not covered yet."""
        if self._source.generation != self._generation:
            self._generation = self._source.generation
            # What was given up and taken again goes on where it was committed, maybe by another in the meantime.
            self._covered = {p.number: at or 0 for p, at in self._source.assigned().items()}
            self._health.ready = True
            log.info("partitions %s", sorted(self._covered) or "none: others have them")
        return [record for record in records if record.offset >= self._covered.get(record.partition, record.offset + 1)]

    def _work_off(self, records: Sequence[Record], stop: threading.Event) -> None:
        started = self._clock.monotonic()
        handled = self._patience.insist(lambda: self._handler.handle(records, self._covered), stop)
        self._patience.insist(lambda: self._remember(handled), stop)
        self._patience.insist(lambda: self._publish(records, handled), stop)
        for one in handled:
            self._covered[one.record.source_partition] = one.record.to_offset
        self._observed.collected(records, handled, self._handler.masked, self._clock.monotonic() - started)
        positions = {Partition(r.topic, r.partition): self._covered[r.partition] for r in records}
        self._patience.insist(lambda: self._source.commit(positions), stop)

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
    own, line, url = settings.collector, settings.line.name, settings.redis.url
    fetch = None
    if own.dataref_allowed_prefixes:
        fetch = Fetcher(
            own.dataref_allowed_prefixes, max_bytes=own.max_event_bytes, timeout_seconds=own.dataref_timeout_seconds
        )
    return CollectorApp(
        settings,
        source=KafkaGroupSource(settings.kafka, [topics.EVENTS.name], group_id(line)),
        sink=KafkaSink(settings.kafka),
        memory=RedisMemory(url, line),
        seen=RedisSeen(
            url,
            line,
            window_seconds=own.dedupe_window_seconds,
            slack_seconds=own.dedupe_slack_seconds,
            near_threshold=own.near_threshold,
        ),
        halves=RedisHalves(url, line, window_seconds=own.join_window_seconds),
        metrics=metrics,
        health=health,
        clock=SystemClock(),
        fetch=fetch,
    )
