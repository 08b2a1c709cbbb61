"""``lifelong topics apply | check``: the topics on the cluster as the contract has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import InvalidReplicationFactorError, TopicAlreadyExistsError

from lifelong.config.shared import KafkaSettings
from lifelong.contracts.topics import EVENTS, SAMPLES, TOPICS, VERSIONS, Topic
from lifelong.errors import ConfigError
from lifelong.stream.base import Partition
from lifelong.stream.kafka_client import connect, described, reachable

_PATIENCE_SECONDS = 30.0
_KEEPING = ("retention.ms", "retention.bytes")


def apply_topics(settings: KafkaSettings) -> list[str]:
    """Create what is missing and set what differs; what was done, in words.

    Whoever keeps records for longer than the contract asks is left alone. The number of partitions of a topic that is
    there is never changed: positions and watermarks depend on it. Topics that are missing get as many as the events
    topic has.

    Raises:
        UnreachableError: no broker answers. StreamError: it refuses. ConfigError: more replicas than brokers.
    """
    changes = []
    with _admin(settings) as admin:
        present = _present(admin)
        missing = {}
        for topic in TOPICS:
            name = settings.topic_prefix + topic.name
            if name not in present:
                missing[name] = _as_created(topic, present, settings)
                changes.append(f"{name}: created with {missing[name]['num_partitions']} partitions")
            elif different := _different(admin, name, topic):
                configs = {key: value for key, (_, value) in different.items()}
                admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs)])
                changes += [f"{name}: {key} set from {was} to {value}" for key, (was, value) in different.items()]
        if missing:
            _create(admin, missing, settings)
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
            problems += _partition_problems(topic, present, settings)
            different = _different(admin, name, topic)
            problems += [
                f"{name}: {key} is {was}, should be {value}{_why(topic, key)}: `lifelong topics apply` sets it"
                for key, (was, value) in different.items()
            ]
    return problems


def committed_positions(settings: KafkaSettings, group_id: str) -> dict[Partition, int]:
    """Of every partition for which the group has ever committed one; topics by their names in the contract.

    Raises:
        UnreachableError: no broker answers.
    """
    with _admin(settings) as admin:
        committed = admin.list_group_offsets(group_id)[group_id]
    prefix = settings.topic_prefix
    return {
        Partition(at.topic.removeprefix(prefix), at.partition): found.offset
        for at, found in committed.items()
        if found.offset >= 0
    }


def _partition_problems(topic: Topic, present: dict[str, int], settings: KafkaSettings) -> list[str]:
    name = settings.topic_prefix + topic.name
    events = present.get(settings.topic_prefix + EVENTS.name)
    if topic is EVENTS and events != settings.partitions:
        return [
            f"{name} has {events} partitions, kafka.partitions asks for {settings.partitions}: set it to what the "
            "topic has, or make the topic anew before anything is learned"
        ]
    if topic is SAMPLES and present[name] != events:
        return [
            f"{name} has {present[name]} partitions, the events have {events}, and partition p of the one holds what "
            "came of partition p of the other: make it anew; the collector fills it again if its group is new as well"
        ]
    if topic is VERSIONS and present[name] != 1:
        return [f"{name} has {present[name]} partitions, and versions have one order: make it anew with one"]
    # Of the others any number will do.
    return []


def _create(admin: Any, missing: dict[str, dict[str, Any]], settings: KafkaSettings) -> None:
    try:
        admin.create_topics(missing, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        # Somebody else is doing the same at the same time, and knows no other topics than we do.
        admin.wait_for_topics(list(missing))
    except InvalidReplicationFactorError as error:
        raise ConfigError(
            "kafka.replication_factor",
            f"there are fewer brokers than {settings.replication_factor}: {described(error)}",
        ) from error


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


def _as_created(topic: Topic, present: dict[str, int], settings: KafkaSettings) -> dict[str, Any]:
    events = present.get(settings.topic_prefix + EVENTS.name, settings.partitions)
    return {
        "num_partitions": topic.partitions or events,
        "replication_factor": settings.replication_factor,
        "configs": topic.config(),
    }


def _different(admin: Any, name: str, topic: Topic) -> dict[str, tuple[str, str]]:
    """Setting → (as it is, as it should be)."""
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    described = admin.describe_configs([resource], config_filter="all")["topic"][name]
    actual = {key: str(entry["value"]) for key, entry in described.items()}
    wanted = topic.config()
    return {
        key: (actual.get(key, ""), value) for key, value in wanted.items() if not _will_do(key, actual.get(key), value)
    }


def _will_do(key: str, actual: str | None, wanted: str) -> bool:
    """Of what is kept, more will do."""
    if key in _KEEPING and actual is not None:
        return _kept(actual) >= _kept(wanted)
    return actual == wanted


def _kept(setting: str) -> float:
    """-1 is for ever."""
    return float("inf") if int(setting) < 0 else int(setting)


def _why(topic: Topic, key: str) -> str:
    if key in _KEEPING and topic in (EVENTS, SAMPLES):
        return " or more, for versions can be verified and events forgotten only as far back as that"
    return ""
