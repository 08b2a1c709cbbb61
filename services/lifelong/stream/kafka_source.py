"""Reading from Kafka: by a reader that keeps its own positions, or as a member of a group."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import CommitFailedError, NoOffsetForPartitionError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

from lifelong.config.shared import KafkaSettings
from lifelong.contracts.topics import MAX_MESSAGE_BYTES
from lifelong.errors import MissingPartError, StreamGapError
from lifelong.stream.base import Partition, Record
from lifelong.stream.kafka_client import client_options, reachable

_METADATA_SECONDS = 30.0


class _KafkaReader:
    """What both kinds of source share."""

    def __init__(self, settings: KafkaSettings, topics: Sequence[str], **options: Any) -> None:
        self._settings = settings
        self._topics = {settings.topic_prefix + topic: topic for topic in topics}
        with reachable(settings, "connecting"):
            self._consumer = KafkaConsumer(
                **client_options(settings),
                # An offset committed before the work is done loses events.
                enable_auto_commit=False,
                # Without a position we decide ourselves; with one that is gone we want to know.
                auto_offset_reset="none",
                isolation_level="read_committed",
                max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
                fetch_max_wait_ms=100,
                allow_auto_create_topics=False,
                **options,
            )

    def poll(self, timeout_seconds: float, max_records: int = 500) -> list[Record]:
        with reachable(self._settings, f"reading {', '.join(self._topics.values())}"):
            try:
                polled = self._consumer.poll(int(timeout_seconds * 1000), max_records=max_records)
            except OffsetOutOfRangeError as error:
                raise self._gap(error) from error
            except NoOffsetForPartitionError:
                # Nothing was ever committed; the group source says where such a partition starts.
                polled = {}
        return [
            Record(
                self._topics[record.topic],
                record.partition,
                record.offset,
                record.key,
                record.value,
                tuple(record.headers),
                record.timestamp / 1000,
            )
            for records in polled.values()
            for record in records
        ]

    def pending(self) -> dict[Partition, int]:
        waiting = {}
        for assigned in self._consumer.assignment():
            highwater = self._consumer.highwater(assigned)
            if highwater is None:
                continue  # Nothing was fetched of it yet.
            waiting[self._ours(assigned)] = max(0, highwater - self._consumer.position(assigned))
        return waiting

    def close(self) -> None:
        self._consumer.close()

    def _ours(self, assigned: TopicPartition) -> Partition:
        return Partition(self._topics[assigned.topic], assigned.partition)

    def _theirs(self, partition: Partition) -> TopicPartition:
        return TopicPartition(self._settings.topic_prefix + partition.topic, partition.number)

    def _gap(self, error: OffsetOutOfRangeError) -> StreamGapError:
        partitions = list(self._consumer.assignment())
        first = self._consumer.beginning_offsets(partitions)
        end = self._consumer.end_offsets(partitions)
        gaps = []
        for partition in partitions:
            wanted = self._consumer.position(partition)
            if wanted is not None and not first[partition] <= wanted <= end[partition]:
                has = f"the topic has [{first[partition]}, {end[partition]})"
                gaps.append(f"{partition.topic}-{partition.partition}: offset {wanted} is wanted, {has}")
        return StreamGapError(
            ("; ".join(gaps) or str(error))
            + ". Records were deleted before they were read: retention is too short, or "
            "the topic was made anew"
        )


class KafkaSource(_KafkaReader):
    """A :class:`~lifelong.stream.base.Source`: all partitions of some topics, positions kept by the caller."""

    def __init__(self, settings: KafkaSettings, topics: Sequence[str]) -> None:
        super().__init__(settings, topics, group_id=None)
        with reachable(settings, "looking up partitions"):
            self._partitions = [TopicPartition(name, number) for name in self._topics for number in self._numbers(name)]
            self._consumer.assign(self._partitions)

    def seek(self, positions: Mapping[Partition, int]) -> None:
        wanted = {self._theirs(partition): at for partition, at in positions.items()}
        with reachable(self._settings, "seeking"):
            beginnings = self._consumer.beginning_offsets([p for p in self._partitions if p not in wanted])
            for partition in self._partitions:
                self._consumer.seek(partition, wanted.get(partition, beginnings.get(partition)))

    def end_positions(self) -> dict[Partition, int]:
        """Where the next record of each partition will be: ``seek`` there to read only what is yet to come."""
        with reachable(self._settings, "looking up the end"):
            ends = self._consumer.end_offsets(self._partitions)
        return {self._ours(partition): at for partition, at in ends.items()}

    def _numbers(self, name: str) -> list[int]:
        deadline = time.monotonic() + _METADATA_SECONDS
        while not (numbers := self._consumer.partitions_for_topic(name)):
            if time.monotonic() > deadline:
                raise MissingPartError(f"there is no topic {name}: create the topics with `lifelong topics apply`")
            time.sleep(0.2)
        return sorted(numbers)


class KafkaGroupSource(_KafkaReader):
    """A :class:`~lifelong.stream.base.GroupSource`."""

    def __init__(self, settings: KafkaSettings, topics: Sequence[str], group_id: str) -> None:
        super().__init__(
            settings,
            topics,
            group_id=group_id,
            # Whoever dies without a word is replaced after this; the heartbeat is a thread of its own.
            session_timeout_ms=10_000,
            heartbeat_interval_ms=3_000,
            # Long work between two polls is no reason to lose one's partitions.
            max_poll_interval_ms=30 * 60 * 1000,
        )
        self._committed: dict[TopicPartition, int | None] = {}
        # Assigned in a callback on the client's own thread, where nothing may block; looked up in the next poll.
        self._to_look_up: set[TopicPartition] = set()
        self._held: list[Record] = []
        self._generation = 0
        self._consumer.subscribe(list(self._topics), listener=_Listener(self))

    def poll(self, timeout_seconds: float, max_records: int = 500) -> list[Record]:
        # Polled already, and lost if the look-up failed without them being kept for the next call.
        self._held = self._held or super().poll(timeout_seconds, max_records)
        if self._to_look_up:
            self._look_up()
        records, self._held = self._held, []
        return records

    @property
    def generation(self) -> int:
        return self._generation

    def assigned(self) -> dict[Partition, int | None]:
        return {self._ours(partition): at for partition, at in self._committed.items()}

    def commit(self, positions: Mapping[Partition, int]) -> None:
        ours = {
            self._theirs(partition): OffsetAndMetadata(at, "", -1)
            for partition, at in positions.items()
            if self._theirs(partition) in self._committed
        }
        if not ours:
            return
        with reachable(self._settings, "committing"):
            try:
                self._consumer.commit(ours)
            except CommitFailedError:
                # The group has moved on without us: whoever has the partitions now does that work again.
                return
        for partition, at in ours.items():
            if partition in self._committed:
                self._committed[partition] = at.offset

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._generation += 1
        self._to_look_up.update(partitions)

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self._generation += 1
        self._to_look_up.difference_update(partitions)
        for partition in partitions:
            self._committed.pop(partition, None)

    def _look_up(self) -> None:
        with reachable(self._settings, "looking up committed positions"):
            for partition in list(self._to_look_up):
                at = self._consumer.committed(partition)
                if partition not in self._to_look_up:
                    continue  # Taken away from us meanwhile.
                self._to_look_up.discard(partition)
                self._committed[partition] = at
                if at is None:
                    self._consumer.seek_to_beginning(partition)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, source: KafkaGroupSource) -> None:
        self._source = source

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self._source.on_assigned(list(assigned))

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self._source.on_revoked(list(revoked))
