"""What the two kinds of Kafka sources share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError

from lifelong.config.shared import KafkaSettings
from lifelong.contracts.topics import MAX_MESSAGE_BYTES
from lifelong.errors import LifelongError, MissingPartError, StreamError, StreamGapError, UnreachableError
from lifelong.stream.base import Partition, Record
from lifelong.stream.kafka_client import connect, described, reachable

Polled = Mapping[TopicPartition, Sequence[ConsumerRecord]]

# Without records for so long: ask whether there is a broker at all. The consumer itself would wait in silence.
_QUIET_SECONDS = 5.0
_PROBE_SECONDS = 1.0
# A topic that was just created is not known to every broker at once.
_METADATA_SECONDS = 10.0


class KafkaReader:
    """A consumer that never decides by itself where to go on reading.

    ``patience_seconds``: for how long a broker may be away before a poll raises UnreachableError. Reading may go on
    after that, with the next poll.
    """

    def __init__(
        self, settings: KafkaSettings, topics: Sequence[str], *, patience_seconds: float, **options: Any
    ) -> None:
        self._settings = settings
        self._topics = {settings.topic_prefix + topic: topic for topic in topics}
        self._patience_seconds = patience_seconds
        self._consumer = connect(
            KafkaConsumer,
            settings,
            patience_seconds,
            # An offset committed before the work is done loses events.
            enable_auto_commit=False,
            # Without a position we decide ourselves; with one that is gone we want to know.
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
            fetch_max_bytes=2 * MAX_MESSAGE_BYTES,
            fetch_max_wait_ms=100,
            allow_auto_create_topics=False,
            metrics_enabled=False,
            **options,
        )
        self._heard_at = time.monotonic()
        self._broken: LifelongError | None = None

    def _numbers(self, name: str) -> list[int]:
        """Of the partitions.

        Raises:
            MissingPartError: there is no such topic.
        """
        deadline = time.monotonic() + min(_METADATA_SECONDS, self._patience_seconds)
        with reachable(self._settings, "looking up partitions"):
            while not (numbers := self._consumer.partitions_for_topic(name)):
                if time.monotonic() > deadline:
                    raise MissingPartError(f"there is no topic {name}: create the topics with `lifelong topics apply`")
                time.sleep(0.1)
        return sorted(numbers)

    def pending(self) -> dict[Partition, int]:
        assigned = list(self._consumer.assignment())
        ends = {partition: self._consumer.highwater(partition) for partition in assigned}
        if unknown := [partition for partition, end in ends.items() if end is None]:
            with reachable(self._settings, "looking up the end"):
                ends.update(self._consumer.end_offsets(unknown, timeout_ms=self._patience_ms))
        waiting = {}
        for partition in assigned:
            position = self._position(partition)
            if position is not None:
                waiting[self._ours(partition)] = max(0, ends[partition] - position)
        return waiting

    def close(self) -> None:
        self._consumer.close(timeout_ms=5_000)

    def _poll(self, timeout_seconds: float, max_records: int) -> Polled:
        """
        Raises:
            NoOffsetForPartitionError: a partition has no position. All others: as ``Source.poll``.
        """
        if self._broken is not None:
            # After an error of this kind kafka-python's poll may never return.
            raise self._broken
        try:
            polled: Polled = self._consumer.poll(max(0, int(timeout_seconds * 1000)), max_records=max_records)
        except (OffsetOutOfRangeError, LogTruncationError) as error:
            self._broken = self._gap(error)
            raise self._broken from error
        except NoOffsetForPartitionError:
            raise
        except KafkaError as error:
            if not error.retriable:
                self._broken = self._unreadable(error)
                raise self._broken from error
            polled = {}
        if polled:
            self._heard_at = time.monotonic()
        else:
            self._listen()
        return polled

    def _listen(self) -> None:
        if time.monotonic() - self._heard_at < _QUIET_SECONDS:
            return
        try:
            self._consumer.end_offsets([TopicPartition(next(iter(self._topics)), 0)], timeout_ms=_PROBE_SECONDS * 1000)
        except KafkaError as error:
            quiet_seconds = time.monotonic() - self._heard_at
            if quiet_seconds > self._patience_seconds:
                raise UnreachableError(
                    f"Kafka at {self._settings.bootstrap_servers} has not answered for {quiet_seconds:.0f} s: "
                    f"{described(error)}"
                ) from error
        else:
            self._heard_at = time.monotonic()

    def _records(self, polled: Polled) -> list[Record]:
        return [
            Record(
                self._topics[record.topic],
                record.partition,
                record.offset,
                record.key,
                record.value,
                # Kafka has headers without a value; what they mean nobody has said.
                tuple((name, value or b"") for name, value in record.headers),
                record.timestamp / 1000,
            )
            for records in polled.values()
            for record in records
        ]

    def _position(self, partition: TopicPartition) -> int | None:
        try:
            position: int | None = self._consumer.position(partition, timeout_ms=0)
        except KafkaError:
            # Not settled yet.
            return None
        return position

    @property
    def _patience_ms(self) -> int:
        return int(self._patience_seconds * 1000)

    def _ours(self, partition: TopicPartition) -> Partition:
        return Partition(self._topics[partition.topic], partition.partition)

    def _theirs(self, partition: Partition) -> TopicPartition:
        return TopicPartition(self._settings.topic_prefix + partition.topic, partition.number)

    def _gap(self, error: KafkaError) -> LifelongError:
        with reachable(self._settings, "looking for the gap"):
            partitions = sorted(self._consumer.assignment())
            firsts = self._consumer.beginning_offsets(partitions, timeout_ms=self._patience_ms)
            ends = self._consumer.end_offsets(partitions, timeout_ms=self._patience_ms)
        for partition in partitions:
            wanted = self._position(partition)
            first, end = firsts[partition], ends[partition]
            if wanted is not None and not first <= wanted <= end:
                return StreamGapError(partition.topic, partition.partition, wanted, first, end)
        return StreamError(f"records are missing: {described(error)}")

    def _unreadable(self, error: KafkaError) -> StreamError:
        at = {f"{p.topic}-{p.partition}": self._position(p) for p in sorted(self._consumer.assignment())}
        where = ", ".join(f"{name} at {position}" for name, position in at.items()) or "nothing assigned yet"
        return StreamError(f"cannot read on: {described(error)} ({where})")
