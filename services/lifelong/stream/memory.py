"""The stream in memory: partitions, offsets and groups as Kafka has them, for tests and simulations.

Deterministic: what a reader gets depends only on the order of the calls.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence

from lifelong.contracts.topics import MAX_MESSAGE_BYTES
from lifelong.errors import StreamError, StreamGapError
from lifelong.runtime.clock import Clock, SystemClock
from lifelong.stream.base import Partition, Record

Step = Callable[[str], None]
"""Called with ``send``, ``flush``, ``poll`` or ``commit`` before each; may raise, to see what happens then."""


def _nothing(step: str) -> None:
    del step


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

    # -- the two sides -------------------------------------------------------------------------------------------

    def sink(self, on: Step = _nothing) -> MemorySink:
        return MemorySink(self, on)

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
        return self._groups.setdefault(group_id, _Group())

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
            for partition in sorted(positions):
                at = positions[partition]
                if not self.first(partition) <= at <= self.end(partition):
                    raise StreamGapError(*partition, at, self.first(partition), self.end(partition))
                records = self._log(partition)[at : at + max_records - len(found)]
                positions[partition] = at + len(records)
                found += records
        return found

    def _log(self, partition: Partition) -> list[Record]:
        return self._logs.setdefault(partition, [])


class _Group:
    def __init__(self) -> None:
        self.members: list[MemoryGroupSource] = []
        self.committed: dict[Partition, int] = {}


class MemorySink:
    """A :class:`~lifelong.stream.base.Sink` whose records arrive at once."""

    def __init__(self, broker: MemoryBroker, on: Step) -> None:
        self._broker = broker
        self._on = on
        self._failures: list[StreamError] = []

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
        try:
            self._broker.append(topic, value, key, partition, headers, time)
        except StreamError as error:
            self._failures.append(error)

    def flush(self) -> None:
        self._on("flush")
        if self._failures:
            failures, self._failures = self._failures, []
            raise failures[0]

    def close(self) -> None:
        pass


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
    """A :class:`~lifelong.stream.base.GroupSource`. Never blocks; rebalances happen when members join and leave."""

    def __init__(self, broker: MemoryBroker, topics: Sequence[str], group_id: str, on: Step) -> None:
        self._broker = broker
        self._topics = topics
        self._group = broker.group(group_id)
        self._on = on
        self._positions: dict[Partition, int] = {}
        self._assigned: dict[Partition, int | None] = {}
        self._generation = 0
        with broker.lock:
            self._group.members.append(self)
            self._rebalance()

    @property
    def generation(self) -> int:
        return self._generation

    def assigned(self) -> dict[Partition, int | None]:
        return dict(self._assigned)

    def poll(self, timeout_seconds: float, max_records: int = 500) -> list[Record]:
        self._on("poll")
        return self._broker.read(self._positions, max_records)

    def commit(self, positions: Mapping[Partition, int]) -> None:
        self._on("commit")
        with self._broker.lock:
            for partition, at in positions.items():
                if partition in self._assigned:
                    self._group.committed[partition] = at

    def pending(self) -> dict[Partition, int]:
        return {p: self._broker.end(p) - at for p, at in self._positions.items()}

    def close(self) -> None:
        with self._broker.lock:
            if self in self._group.members:
                self._group.members.remove(self)
                self._assigned, self._positions = {}, {}
                self._rebalance()

    def _rebalance(self) -> None:
        members = self._group.members
        everything = [p for topic in self._topics for p in self._broker.partitions(topic)]
        for index, member in enumerate(members):
            member._receive(everything[index :: len(members)])

    def _receive(self, partitions: Sequence[Partition]) -> None:
        self._generation += 1
        # As Kafka's eager protocol: all are given up and taken again, from what was committed.
        self._assigned = {p: self._group.committed.get(p) for p in partitions}
        self._positions = {p: self._broker.first(p) if at is None else at for p, at in self._assigned.items()}
