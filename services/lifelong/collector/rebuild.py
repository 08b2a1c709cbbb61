"""Redis was lost: memory, what was seen and the halves that wait are made again from the events.

Everything up to the committed positions is handled again, as the first time: what is decided is decided by position.
Only accounts are not written again, for the samples topic has them. Nobody collects meanwhile: an event that came
before must not be taken for new, because what would say so is not there yet.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from lifelong.collector.handler import Handled, Handler
from lifelong.collector.knowledge import Knowledge, KnowledgeLostError
from lifelong.collector.patience import Stopped
from lifelong.memory.base import MemoryEntry, MemoryStore
from lifelong.runtime.clock import Clock
from lifelong.stream.base import Partition, Record, Source

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_LOOK_SECONDS = 0.5
_TELL_SECONDS = 10.0
_BATCH = 1000

T = TypeVar("T")


class Rebuilder:
    """
    Args:
        history: opens a reader of the events.
        committed: the positions of the group, of every partition that has one.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        history: Callable[[], Source],
        committed: Callable[[], Mapping[Partition, int]],
        memory: MemoryStore,
        knowledge: Knowledge,
        clock: Clock,
    ) -> None:
        self._handler = handler
        self._history = history
        self._committed = committed
        self._memory = memory
        self._knowledge = knowledge
        self._clock = clock
        self._name = secrets.token_hex(8)
        self.progress: str | None = None
        """For people; ``None``: there is nothing to make again."""

    def token(self, stop: threading.Event) -> str:
        """Of what Redis knows; blocks until it knows everything, which may be for as long as reading all events takes.

        Raises:
            UnreachableError: the same call may be made again, and begins again. Stopped: told to stop.
        """
        try:
            while (token := self._knowledge.token()) is None:
                if self._knowledge.begin(self._name):
                    # Where it is lost again, it begins again.
                    with contextlib.suppress(KnowledgeLostError):
                        self._tell(stop)
                        self._knowledge.complete(self._name)
                else:
                    self.progress = "another collector reads all events again, for Redis was lost"
                    if stop.wait(_LOOK_SECONDS):
                        raise Stopped
        finally:
            self.progress = None
        return token

    def is_still(self, token: str) -> bool:
        """Whether nothing was lost since. Raises UnreachableError."""
        return self._knowledge.is_still(token)

    def _tell(self, stop: threading.Event) -> None:
        committed = {partition: at for partition, at in self._committed().items() if at > 0}
        if not committed:
            return
        started = self._clock.monotonic()
        source = self._history()
        try:
            past = self._read(source, committed, stop)
        finally:
            source.close()
        entries = past.entries()
        for event_ids in _cut(sorted(past.forgotten)):
            self._memory.forget(event_ids=event_ids)
        for some in _cut(entries):
            self._memory.put(some)
        seconds = self._clock.monotonic() - started
        log.warning("%d memories are there again, of %d events, after %.1f s", len(entries), past.num_events, seconds)

    def _read(self, source: Source, committed: Mapping[Partition, int], stop: threading.Event) -> _Past:
        firsts, ends = source.first_positions(), source.end_positions()
        # Less, where the topic was made anew.
        upto = {p: min(at, ends.get(p, 0)) for p, at in committed.items()}
        at = {p: firsts.get(p, 0) for p in upto}
        total = sum(max(0, end - at[p]) for p, end in upto.items())
        log.warning("Redis knows nothing of what was collected: %d events are read again, nothing new before", total)
        source.seek({p: at[p] if at.get(p, end) < upto.get(p, 0) else end for p, end in ends.items()})
        waiting = _Merge({p: end for p, end in upto.items() if at[p] < end})
        past, told_at = _Past(), self._clock.monotonic()
        while waiting.is_open:
            if stop.is_set():
                raise Stopped
            records = waiting.sort(source.poll(_POLL_SECONDS))
            past.take(records, self._handler.handle(records, {p.number: 0 for p in upto}))
            self._knowledge.begin(self._name)
            self.progress = f"{past.num_events} of {total} events are read again, for Redis was lost"
            if self._clock.monotonic() - told_at > _TELL_SECONDS:
                log.warning("%s", self.progress)
                told_at = self._clock.monotonic()
        return past


class _Merge:
    """Partitions as they were collected, roughly: by the times of their records, each in its own order.

    Of what came twice the first counts, whichever partition is read faster.
    """

    def __init__(self, upto: Mapping[Partition, int]) -> None:
        """``upto``: of each partition that has something, where it ends."""
        self._upto = dict(upto)
        self._waiting: dict[Partition, deque[Record]] = {partition: deque() for partition in upto}

    @property
    def is_open(self) -> bool:
        return bool(self._waiting)

    def sort(self, records: Sequence[Record]) -> list[Record]:
        """What can be told by now; the rest waits for what other partitions have."""
        for record in records:
            partition = Partition(record.topic, record.partition)
            if partition in self._waiting and record.offset < self._upto[partition]:
                self._waiting[partition].append(record)
        found = []
        while self._waiting and all(self._waiting.values()):
            partition = min(self._waiting, key=lambda p: (self._waiting[p][0].time, p))
            record = self._waiting[partition].popleft()
            found.append(record)
            if record.offset + 1 >= self._upto[partition]:
                del self._waiting[partition]
        return found


class _Past:
    """What is to be remembered once everything was taken, whatever order the partitions were read in."""

    def __init__(self) -> None:
        self.num_events = 0
        self.forgotten: set[str] = set()
        """Ids of events."""
        self._entries: list[tuple[Record, MemoryEntry]] = []
        self._forgets: dict[str, list[Record]] = defaultdict(list)
        """By user."""

    def take(self, records: Sequence[Record], handled: Sequence[Handled]) -> None:
        self.num_events += len(records)
        for record, one in zip(records, handled, strict=True):
            self._entries += [(_place(record), entry) for entry in one.memory]
            if (forget := one.record.forget) is not None:
                self.forgotten.update(forget.event_ids)
                if forget.user is not None:
                    self._forgets[forget.user].append(_place(record))

    def entries(self) -> list[MemoryEntry]:
        kept = []
        for place, entry in self._entries:
            if entry.user is not None and any(_is_before(place, forget) for forget in self._forgets[entry.user]):
                self.forgotten.add(entry.event_id)
            else:
                kept.append(entry)
        return [entry for entry in kept if entry.event_id not in self.forgotten]


def _cut(whole: Sequence[T]) -> Iterator[Sequence[T]]:
    """One call must not keep others waiting for long."""
    for start in range(0, len(whole), _BATCH):
        yield whole[start : start + _BATCH]


def _place(record: Record) -> Record:
    """Without what would fill memory."""
    return Record(record.topic, record.partition, record.offset, None, None, (), record.time)


def _is_before(one: Record, other: Record) -> bool:
    if one.partition == other.partition:
        return one.offset < other.offset
    return one.time <= other.time
