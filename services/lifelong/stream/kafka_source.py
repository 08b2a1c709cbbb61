"""Reading from Kafka with positions that the caller keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kafka import TopicPartition

from lifelong.config.shared import KafkaSettings
from lifelong.errors import StreamGapError
from lifelong.stream.base import Partition, Record
from lifelong.stream.kafka_client import reachable
from lifelong.stream.kafka_reader import KafkaReader


class KafkaSource(KafkaReader):
    """A :class:`~lifelong.stream.base.Source`: all partitions that the topics have when it is made."""

    def __init__(self, settings: KafkaSettings, topics: Sequence[str], *, patience_seconds: float = 60.0) -> None:
        super().__init__(settings, topics, patience_seconds=patience_seconds, group_id=None)
        try:
            self._partitions = [TopicPartition(name, n) for name in self._topics for n in self._numbers(name)]
            self._consumer.assign(self._partitions)
        except BaseException:
            self.close()
            raise
        self._sought = False

    def seek(self, positions: Mapping[Partition, int]) -> None:
        wanted = {self._theirs(partition): at for partition, at in positions.items()}
        for partition in wanted.keys() - set(self._partitions):
            assert partition.topic in self._topics, f"{partition.topic} is not among the topics of this source"
            raise StreamGapError(partition.topic, partition.partition, wanted[partition], 0, 0)
        for partition in self._partitions:
            if partition in wanted:
                self._consumer.seek(partition, wanted[partition])
            else:
                self._consumer.seek_to_beginning(partition)
        self._broken = None
        self._sought = True

    def first_positions(self) -> dict[Partition, int]:
        with reachable(self._settings, "looking up the beginning"):
            firsts = self._consumer.beginning_offsets(self._partitions, timeout_ms=self._patience_ms)
        return {self._ours(partition): at for partition, at in firsts.items()}

    def end_positions(self) -> dict[Partition, int]:
        with reachable(self._settings, "looking up the end"):
            ends = self._consumer.end_offsets(self._partitions, timeout_ms=self._patience_ms)
        return {self._ours(partition): at for partition, at in ends.items()}

    def poll(self, timeout_seconds: float, max_records: int = 500) -> list[Record]:
        assert self._sought, "seek before the first poll"
        return self._records(self._poll(timeout_seconds, max_records))
