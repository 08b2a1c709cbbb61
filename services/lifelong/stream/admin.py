"""``lifelong topics apply | check``: the topics on the cluster as the contract has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from lifelong.config.shared import KafkaSettings
from lifelong.contracts.topics import TOPICS, Topic
from lifelong.stream.kafka_client import connect, reachable

_PATIENCE_SECONDS = 30.0


def apply_topics(settings: KafkaSettings) -> list[str]:
    """Create what is missing and set what differs; what was done, in words.

    The number of partitions of a topic that is there is never changed: positions and watermarks depend on it.

    Raises:
        UnreachableError: no broker answers, or it refused.
    """
    changes = []
    with _admin(settings) as admin:
        present = _present(admin)
        for topic in TOPICS:
            name = settings.topic_prefix + topic.name
            if name not in present:
                wanted = {
                    "num_partitions": _partitions(topic, settings),
                    "replication_factor": settings.replication_factor,
                    "configs": topic.config(),
                }
                admin.create_topics({name: wanted}, wait_for_metadata=True)
                changes.append(f"{name}: created with {wanted['num_partitions']} partitions")
            elif different := _different(admin, name, topic):
                configs = {key: value for key, (_, value) in different.items()}
                admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs)])
                changes += [f"{name}: {key} set from {was} to {value}" for key, (was, value) in different.items()]
    return changes


def check_topics(settings: KafkaSettings) -> list[str]:
    """What is not as it should be, in words.

    Raises:
        UnreachableError: no broker answers.
    """
    problems = []
    with _admin(settings) as admin:
        present = _present(admin)
        for topic in TOPICS:
            name = settings.topic_prefix + topic.name
            if name not in present:
                problems.append(f"{name} is missing: `lifelong topics apply` creates it")
                continue
            wanted = _partitions(topic, settings)
            if present[name] != wanted:
                problems.append(
                    f"{name} has {present[name]} partitions, kafka.partitions asks for {wanted}: set it to what the "
                    "topic has, or make the topic anew before anything is learned"
                )
            different = _different(admin, name, topic)
            problems += [f"{name}: {key} is {was}, should be {value}" for key, (was, value) in different.items()]
    return problems


@contextmanager
def _admin(settings: KafkaSettings) -> Iterator[Any]:
    with reachable(settings, "administering topics"):
        admin = connect(KafkaAdminClient, settings, _PATIENCE_SECONDS)
        try:
            yield admin
        finally:
            admin.close()


def _present(admin: Any) -> dict[str, int]:
    """Topic → number of partitions."""
    return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}


def _partitions(topic: Topic, settings: KafkaSettings) -> int:
    return topic.partitions or settings.partitions


def _different(admin: Any, name: str, topic: Topic) -> dict[str, tuple[str, str]]:
    """Setting → (as it is, as it should be)."""
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    described = admin.describe_configs([resource], config_filter="all")["topic"][name]
    actual = {key: str(entry["value"]) for key, entry in described.items()}
    wanted = topic.config()
    return {key: (actual.get(key, ""), value) for key, value in wanted.items() if actual.get(key) != value}
