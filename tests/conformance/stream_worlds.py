"""The brokers on which the same behaviour is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from lifelong.config.shared import KafkaSettings
from lifelong.stream.base import GroupSource, Partition, Record, Sink, Source
from lifelong.stream.kafka import KafkaGroupSource, KafkaSink, KafkaSource
from lifelong.stream.memory import MemoryBroker

_PATIENCE_SECONDS = 60.0


class World(Protocol):
    """A broker whose topics have two partitions each. Everything it hands out is closed with it."""

    def sink(self) -> Sink: ...

    def source(self, topics: Sequence[str]) -> Source: ...

    def group_source(self, topics: Sequence[str], group_id: str) -> GroupSource: ...

    def delete_before(self, partition: Partition, offset: int) -> None:
        """As retention does."""
        ...

    def limit(self, topic: str, max_bytes: int) -> None:
        """The broker, not the sink, refuses larger records from now on."""
        ...

    def close(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self._broker = MemoryBroker()
        self.sink = self._broker.sink
        self.source = self._broker.source
        self.group_source = self._broker.group_source
        self.delete_before = self._broker.delete_before
        self.limit = self._broker.limit

    def close(self) -> None:
        pass


class KafkaWorld:
    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self._opened: list[Any] = []
        self.admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)

    def sink(self) -> Sink:
        return self._keep(KafkaSink(self.settings))

    def source(self, topics: Sequence[str]) -> Source:
        return self._keep(KafkaSource(self.settings, topics))

    def group_source(self, topics: Sequence[str], group_id: str) -> GroupSource:
        return self._keep(KafkaGroupSource(self.settings, topics, self.settings.topic_prefix + group_id))

    def delete_before(self, partition: Partition, offset: int) -> None:
        self.admin.delete_records(
            {TopicPartition(self.settings.topic_prefix + partition.topic, partition.number): offset}
        )

    def limit(self, topic: str, max_bytes: int) -> None:
        self.configure(topic, "max.message.bytes", str(max_bytes))

    def configure(self, topic: str, key: str, value: str) -> None:
        """Blocks until the broker has heard of it, from its controller."""
        name = self.settings.topic_prefix + topic
        self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {key: value})])
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            resource = ConfigResource(ConfigResourceType.TOPIC, name)
            described = self.admin.describe_configs([resource], config_filter="all")["topic"][name]
            if described[key]["value"] == value:
                return
            assert time.monotonic() < deadline

    def close(self) -> None:
        for opened in reversed(self._opened):
            opened.close()
        self.admin.close()

    def _keep(self, opened: Any) -> Any:
        self._opened.append(opened)
        return opened


def read(source: Source | GroupSource, wanted: int, max_records: int = 500) -> list[Record]:
    """Polls until so many records have come; exactly so many must. In a group, since it last shared out anew."""
    records: list[Record] = []
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while len(records) < wanted:
        assert time.monotonic() < deadline, f"{len(records)} of {wanted} records came"
        generation = getattr(source, "generation", 0)
        polled = source.poll(0.2, max_records)
        records = records + polled if getattr(source, "generation", 0) == generation else polled
    assert len(records) == wanted, [(r.partition, r.offset) for r in records]
    return records


def settle(done: Callable[[], bool], *members: GroupSource) -> dict[int, list[Record]]:
    """Polls all members, at the same time as separate processes would, until the group has come to ``done``.

    Returns:
        what each read, by index, since it was given the partitions it has.
    """
    records: dict[int, list[Record]] = {index: [] for index in range(len(members))}
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with ThreadPoolExecutor(len(members)) as pool:
        while not done():
            assert time.monotonic() < deadline, f"the group does not settle: {[dict(m.assigned()) for m in members]}"
            generations = [member.generation for member in members]
            for index, polled in enumerate(pool.map(lambda member: member.poll(0.3), members)):
                changed = members[index].generation != generations[index]
                records[index] = polled if changed else records[index] + polled
    return records
