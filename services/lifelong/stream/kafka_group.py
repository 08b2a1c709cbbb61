"""Reading from Kafka as one of a group that shares out the partitions."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    NoOffsetForPartitionError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from kafka.structs import OffsetAndMetadata

from lifelong.config.shared import KafkaSettings
from lifelong.stream.base import Partition, Record
from lifelong.stream.kafka_client import reachable
from lifelong.stream.kafka_reader import KafkaReader

log = logging.getLogger(__name__)


class _Ownership(ConsumerRebalanceListener):
    """Which partitions the group has given us. Told during a poll, by the client's own thread: nothing may block."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self.changes = 0
        self.partitions: frozenset[TopicPartition] = frozenset()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.partitions = frozenset(assigned)
        self.changes += 1

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        # The eager protocol: all are given up, also those that will come back.
        self.partitions = frozenset()
        self.changes += 1
        # kafka-python 3.0.12 forgets a rebalance that began because the topic's metadata changed, if the poll ends
        # while the group is still answering: the member then stays without partitions for ever. As in Java's client,
        # a rebalance that has begun is wanted until it is complete.
        self._consumer._coordinator.request_rejoin()


class KafkaGroupSource(KafkaReader):
    """A :class:`~lifelong.stream.base.GroupSource`.

    The group changes hands during polls only; ``assigned``, ``generation`` and the records returned belong together.
    """

    def __init__(
        self, settings: KafkaSettings, topics: Sequence[str], group_id: str, *, patience_seconds: float = 60.0
    ) -> None:
        super().__init__(
            settings,
            topics,
            patience_seconds=patience_seconds,
            group_id=group_id,
            # Whoever dies without a word is replaced after this; the heartbeat is a thread of its own.
            session_timeout_ms=10_000,
            # So quickly a member hears that somebody has come or gone.
            heartbeat_interval_ms=1_000,
            # Work between two polls may take so long. Meanwhile nobody else can come to or leave the group.
            max_poll_interval_ms=15 * 60 * 1000,
        )
        self._ownership = _Ownership(self._consumer)
        self._committed: dict[TopicPartition, int | None] = {}
        self._generation = 0
        try:
            # Whoever shares out the partitions has to know them, or everybody gets nothing at first.
            for name in self._topics:
                self._numbers(name)
            self._consumer.subscribe(list(self._topics), listener=self._ownership)
        except BaseException:
            self.close()
            raise

    @property
    def generation(self) -> int:
        return self._generation

    def assigned(self) -> dict[Partition, int | None]:
        return {self._ours(partition): at for partition, at in self._committed.items()}

    def poll(self, timeout_seconds: float, max_records: int = 500) -> list[Record]:
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._take_over()
            try:
                polled = self._poll(deadline - time.monotonic(), max_records)
            except NoOffsetForPartitionError:
                # Of partitions that have just become ours.
                polled = {}
            if self._ownership.changes == self._generation:
                return self._records(polled)
            # What was polled may be of positions that are not valid any more. It comes again, to whom it belongs.

    def commit(self, positions: Mapping[Partition, int]) -> None:
        if self._ownership.changes != self._generation:
            log.info("positions not committed: the group is sharing out its partitions anew")
            return
        wanted = {self._theirs(partition): at for partition, at in positions.items()}
        ours = {
            partition: OffsetAndMetadata(at, "", -1) for partition, at in wanted.items() if partition in self._committed
        }
        if not ours:
            return
        with reachable(self._settings, "committing"):
            try:
                self._consumer.commit(ours, timeout_ms=self._patience_ms)
            except (CommitFailedError, RebalanceInProgressError, IllegalGenerationError, UnknownMemberIdError) as error:
                # The group has moved on: whoever has the partitions now does that work again.
                log.info("positions not committed: %s", error)

    def skip_to(self, partition: Partition, offset: int) -> None:
        self._broken = None
        self._consumer.seek(self._theirs(partition), offset)

    def _take_over(self) -> None:
        """Everything goes on from what was committed. The client itself would not do so with partitions that stayed."""
        changes = self._ownership.changes
        if changes == self._generation:
            return
        partitions = sorted(self._ownership.partitions)
        with reachable(self._settings, "looking up committed positions"):
            # Nobody but us may commit these now, and we do not before this is done.
            committed = {p: self._consumer.committed(p, timeout_ms=self._patience_ms) for p in partitions}
            for partition, at in committed.items():
                if at is None:
                    self._consumer.seek_to_beginning(partition)
                else:
                    self._consumer.seek(partition, at)
        self._committed = committed
        self._generation = changes
