"""The stream in memory: partitions, offsets and groups as Kafka has them, for tests and simulations.

Deterministic: what a reader gets depends only on the order of the calls.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from lifelong.contracts.topics import MAX_MESSAGE_BYTES
from lifelong.errors import StreamError, StreamGapError, UnreachableError
from lifelong.runtime.clock import Clock, SystemClock
from lifelong.stream.base import Partition, Record

Step = Callable[[str], None]
"""Called with ``send``, ``flush``, ``poll`` or ``commit`` before each; may raise, to see what happens then."""

Fate = Literal["written", "twice", "late", "unknown", "lost"]
"""What becomes of a record that is sent: it is written, or written twice (sent again because the answer was lost); it
is under way until the next flush, or until somebody calls ``MemorySink.deliver``; or the next flush says that the
broker is away, while it was written (``unknown``) or was not (``lost``)."""


def _nothing(step: str) -> None:
    del step


def _written() -> Fate:
    return "written"


class MemoryBroker:
    """``num_partitions`` by topic; a topic not named has ``default_partitions``."""

    def __init__(
        self,
        num_partitions: Mapping[str, int] | None = None,
        *,
        default_partitions: int = 2,
        clock: Clock | None = None,
    ) -> None:
        self._num = dict(num_partitions or {})
        self._default = default_partitions
        self._clock = clock or SystemClock()
        self._logs: dict[Partition, list[Record]] = {}
        self._first: dict[Partition, int] = {}
        self._groups: dict[str, _Group] = {}
        self._turn = 0
        self._max_bytes: dict[str, int] = {}
        self.lock = threading.RLock()

    # -- for tests -----------------------------------------------------------------------------------------------

    def records(self, topic: str, partition: int | None = None) -> list[Record]:
        """All of a topic, or of one partition of it."""
        with self.lock:
            wanted = self.partitions(topic) if partition is None else [Partition(topic, partition)]
            return [record for p in wanted for record in self._log(p)[self.first(p) :]]

    def delete_before(self, partition: Partition, offset: int) -> None:
        """As retention does."""
        with self.lock:
            self._first[partition] = max(self.first(partition), min(offset, len(self._log(partition))))

    def limit(self, topic: str, max_bytes: int) -> None:
        """Larger records are refused, as by a broker whose topic allows less than the sink does."""
        self._max_bytes[topic] = max_bytes

    def committed(self, group_id: str, partition: Partition) -> int | None:
        return self.group(group_id).committed.get(partition)

    def rebalance(self, group_id: str) -> None:
        """All members are given their partitions anew."""
        with self.lock:
            self.group(group_id).rebalance()

    # -- the two sides -------------------------------------------------------------------------------------------

    def sink(self, on: Step = _nothing, fate: Callable[[], Fate] = _written) -> MemorySink:
        return MemorySink(self, on, fate)

    def source(self, topics: Sequence[str], on: Step = _nothing) -> MemorySource:
        return MemorySource(self, topics, on)

    def group_source(self, topics: Sequence[str], group_id: str, on: Step = _nothing) -> MemoryGroupSource:
        return MemoryGroupSource(self, topics, group_id, on)

    # -- what both sides need ------------------------------------------------------------------------------------

    def partitions(self, topic: str) -> list[Partition]:
        return [Partition(topic, number) for number in range(self._num.get(topic, self._default))]

    def first(self, partition: Partition) -> int:
        return self._first.get(partition, 0)

    def end(self, partition: Partition) -> int:
        return len(self._log(partition))

    def group(self, group_id: str) -> _Group:
        return self._groups.setdefault(group_id, _Group(self))

    def append(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int | None,
        headers: Sequence[tuple[str, bytes]],
        time: float | None,
    ) -> None:
        with self.lock:
            number_of = len(self.partitions(topic))
            if partition is None:
                # Any function of the key will do: nobody may rely on Kafka's own.
                partition = zlib.crc32(key) % number_of if key is not None else self._turn % number_of
                self._turn += 1
            elif not 0 <= partition < number_of:
                raise StreamError(f"{topic} has no partition {partition}")
            num_bytes = len(value or b"") + len(key or b"")
            if num_bytes > self._max_bytes.get(topic, MAX_MESSAGE_BYTES):
                raise StreamError(f"a record of {num_bytes} bytes is too large for {topic}")
            log = self._log(Partition(topic, partition))
            # Kafka keeps milliseconds.
            stamp = int((self._clock.now() if time is None else time) * 1000) / 1000
            log.append(Record(topic, partition, len(log), key, value, tuple(headers), stamp))

    def read(self, positions: dict[Partition, int], max_records: int) -> list[Record]:
        """Moves ``positions`` on past what is returned."""
        found: list[Record] = []
        with self.lock:
            # Before anything is read: what was read and not returned would be lost.
            for partition, at in sorted(positions.items()):
                if not self.first(partition) <= at <= self.end(partition):
                    raise StreamGapError(*partition, at, self.first(partition), self.end(partition))
            for partition, at in sorted(positions.items()):
                records = self._log(partition)[at : at + max_records - len(found)]
                positions[partition] = at + len(records)
                found += records
        return found

    def _log(self, partition: Partition) -> list[Record]:
        return self._logs.setdefault(partition, [])


class _Group:
    """Each change of members makes a new generation, of which every member hears in its next poll. What a member of an
    older generation commits is dropped, as Kafka does."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.members: list[MemoryGroupSource] = []
        self.committed: dict[Partition, int] = {}
        self.generation = 0

    def join(self, member: MemoryGroupSource) -> None:
        self.members.append(member)
        self.rebalance()

    def leave(self, member: MemoryGroupSource) -> None:
        if member in self.members:
            self.members.remove(member)
            self.rebalance()

    def rebalance(self) -> None:
        self.generation += 1

    def share(self, member: MemoryGroupSource) -> list[Partition]:
        everything = [p for topic in member.topics for p in self._broker.partitions(topic)]
        return everything[self.members.index(member) :: len(self.members)]


class MemorySink:
    """A :class:`~lifelong.stream.base.Sink`. What is not ``late`` arrives at once."""

    def __init__(self, broker: MemoryBroker, on: Step, fate: Callable[[], Fate]) -> None:
        self._broker = broker
        self._on = on
        self._fate = fate
        self._failures: list[StreamError | UnreachableError] = []
        self._under_way: deque[_Sent] = deque()

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        time: float | None = None,
    ) -> None:
        self._on("send")
        if key is None and value is None:
            raise ValueError("a record needs a key or a value")
        sent = (topic, value, key, partition, headers, time)
        fate = self._fate()
        if fate == "late" or self._under_way:
            # Nothing overtakes what was sent before.
            self._under_way.append(sent)
            return
        if fate in ("unknown", "lost"):
            self._failures.append(UnreachableError("the broker has not answered"))
        for _ in range({"lost": 0, "twice": 2}.get(fate, 1)):
            self._write(sent)

    def flush(self) -> None:
        self._on("flush")
        self.deliver()
        if self._failures:
            failures, self._failures = self._failures, []
            raise failures[0]

    @property
    def num_under_way(self) -> int:
        return len(self._under_way)

    def deliver(self, num_records: int | None = None) -> None:
        """The oldest that are under way, or all, arrive; also after whoever sent them has died."""
        for _ in range(len(self._under_way) if num_records is None else min(num_records, len(self._under_way))):
            self._write(self._under_way.popleft())

    def close(self) -> None:
        self.deliver()

    def _write(self, sent: _Sent) -> None:
        try:
            self._broker.append(*sent)
        except StreamError as error:
            self._failures.append(error)


_Sent = tuple[str, bytes | None, bytes | None, int | None, Sequence[tuple[str, bytes]], float | None]


class MemorySource:
    """A :class:`~lifelong.stream.base.Source`. Never blocks."""

    def __init__(self, broker: MemoryBroker, topics: Sequence[str], on: Step) -> None:
        self._broker = broker
        self._on = on
        self._topics = topics
        self._partitions = [p for topic in topics for p in broker.partitions(topic)]
        self._positions: dict[Partition, int] = {}
        self._sought = False

    def seek(self, positions: Mapping[Partition, int]) -> None:
        for partition in positions.keys() - set(self._partitions):
            assert partition.topic in self._topics, f"{partition.topic} is not among the topics of this source"
            raise StreamGapError(*partition, positions[partition], 0, 0)
        self._positions = {p: positions.get(p, self._broker.first(p)) for p in self._partitions}
        self._sought = True

    def first_positions(self) -> dict[Partition, int]:
        return {p: self._broker.first(p) for p in self._partitions}

    def end_positions(self) -> dict[Partition, int]:
        return {p: self._broker.end(p) for p in self._partitions}

    def poll(self, timeout_seconds: float, max_records: int = 500) -> list[Record]:
        assert self._sought, "seek before the first poll"
        self._on("poll")
        return self._broker.read(self._positions, max_records)

    def pending(self) -> dict[Partition, int]:
        return {p: self._broker.end(p) - at for p, at in self._positions.items()}

    def close(self) -> None:
        pass


class MemoryGroupSource:
    """A :class:`~lifelong.stream.base.GroupSource`. Never blocks."""

    def __init__(self, broker: MemoryBroker, topics: Sequence[str], group_id: str, on: Step) -> None:
        self.topics = topics
        self._broker = broker
        self._group = broker.group(group_id)
        self._on = on
        self._positions: dict[Partition, int] = {}
        self._assigned: dict[Partition, int | None] = {}
        self._generation = 0
        """Of the group, as of the last poll."""
        self._closed = False
        with broker.lock:
            self._group.join(self)

    @property
    def generation(self) -> int:
        return self._generation

    def assigned(self) -> dict[Partition, int | None]:
        return dict(self._assigned)

    def poll(self, timeout_seconds: float, max_records: int = 500) -> list[Record]:
        self._on("poll")
        with self._broker.lock:
            if self._closed:
                return []
            if self not in self._group.members:
                # Taken for dead meanwhile: back as a new member.
                self._group.join(self)
            if self._generation != self._group.generation:
                self._take_over()
            return self._broker.read(self._positions, max_records)

    def commit(self, positions: Mapping[Partition, int]) -> None:
        self._on("commit")
        with self._broker.lock:
            if self not in self._group.members or self._generation != self._group.generation:
                return
            for partition, at in positions.items():
                if partition in self._assigned:
                    self._group.committed[partition] = at

    def pending(self) -> dict[Partition, int]:
        return {p: self._broker.end(p) - at for p, at in self._positions.items()}

    def skip_to(self, partition: Partition, offset: int) -> None:
        self._positions[partition] = offset

    def evict(self) -> None:
        """As the broker does with a member that it has not heard of for long. The member learns of it by polling."""
        with self._broker.lock:
            self._group.leave(self)

    def close(self) -> None:
        with self._broker.lock:
            self._closed = True
            self._assigned, self._positions = {}, {}
            self._group.leave(self)

    def _take_over(self) -> None:
        """As Kafka's eager protocol: all are given up and taken again, from what was committed."""
        self._generation = self._group.generation
        self._assigned = {p: self._group.committed.get(p) for p in self._group.share(self)}
        self._positions = {p: self._broker.first(p) if at is None else at for p, at in self._assigned.items()}
