"""The topics on a real cluster, created, mended and checked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from lifelong.config.shared import KafkaSettings
from lifelong.contracts.topics import EVENTS, OUTPUTS, SAMPLES, TOPICS, VERSIONS
from lifelong.errors import ConfigError
from lifelong.stream.admin import apply_topics, check_topics

T = TypeVar("T")

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafka_servers: str, fresh_line: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka_servers, topic_prefix=f"{fresh_line}.", partitions=3)


@pytest.fixture
def admin(kafka_servers: str) -> Iterator[Any]:
    client = KafkaAdminClient(bootstrap_servers=kafka_servers)
    yield client
    client.close()


def partitions(admin: Any, settings: KafkaSettings) -> dict[str, int]:
    ours = {settings.topic_prefix + topic.name: topic.name for topic in TOPICS}
    return {ours[t["name"]]: len(t["partitions"]) for t in admin.describe_topics() if t["name"] in ours}


def test_everything_is_created_and_then_there_is_nothing_to_do(settings: KafkaSettings, admin: Any) -> None:
    missing = check_topics(settings)
    assert len(missing) == len(TOPICS)
    assert all("is missing" in problem and "topics apply" in problem for problem in missing)
    assert len(apply_topics(settings)) == len(TOPICS)
    assert check_topics(settings) == []
    assert apply_topics(settings) == []
    found = partitions(admin, settings)
    assert found == {topic.name: topic.partitions or 3 for topic in TOPICS}


def test_what_somebody_changed_is_found_and_set_back(settings: KafkaSettings, admin: Any) -> None:
    apply_topics(settings)
    name = settings.topic_prefix + EVENTS.name
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {"retention.ms": "1000"})])
    (problem,) = eventually(lambda: check_topics(settings))
    assert problem.startswith(f"{name}: retention.ms is 1000, should be {EVENTS.retention_ms}")
    (change,) = apply_topics(settings)
    assert change == f"{name}: retention.ms set from 1000 to {EVENTS.retention_ms}"
    eventually(lambda: check_topics(settings) == [])


@pytest.mark.parametrize("key", ["retention.ms", "retention.bytes"])
def test_keeping_less_is_found_and_keeping_more_is_left_alone(settings: KafkaSettings, admin: Any, key: str) -> None:
    apply_topics(settings)
    name = settings.topic_prefix + SAMPLES.name
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {key: "100000"})])
    (problem,) = eventually(lambda: check_topics(settings))
    assert problem.startswith(f"{name}: {key} is 100000, should be {SAMPLES.config()[key]} or more")
    assert "verified" in problem
    more = {"retention.ms": ["-1", str(2 * SAMPLES.retention_ms)], "retention.bytes": ["-1"]}[key]
    for value in more:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {key: value})])
        eventually(lambda: check_topics(settings) == [])
        assert apply_topics(settings) == []


def eventually(look: Callable[[], T]) -> T:
    """A broker hears of a change from its controller, a moment after whoever asked for the change."""
    deadline = time.monotonic() + 30
    while not (found := look()):
        assert time.monotonic() < deadline
    return found


def create(admin: Any, settings: KafkaSettings, **number_of: int) -> None:
    names = {"events": EVENTS.name, "samples": SAMPLES.name, "versions": VERSIONS.name, "outputs": OUTPUTS.name}
    for which, number in number_of.items():
        wanted = {"num_partitions": number, "replication_factor": 1}
        admin.create_topics({settings.topic_prefix + names[which]: wanted}, wait_for_metadata=True)


def test_what_is_missing_gets_as_many_partitions_as_the_events_have(settings: KafkaSettings, admin: Any) -> None:
    create(admin, settings, events=2)
    apply_topics(settings)
    assert partitions(admin, settings)[SAMPLES.name] == 2
    (problem,) = check_topics(settings)
    assert "has 2 partitions, kafka.partitions asks for 3" in problem


def test_the_number_of_partitions_is_never_changed(settings: KafkaSettings, admin: Any) -> None:
    create(admin, settings, events=3, samples=2, versions=2, outputs=5)
    apply_topics(settings)
    found = partitions(admin, settings)
    assert [found[topic.name] for topic in (EVENTS, SAMPLES, VERSIONS, OUTPUTS)] == [3, 2, 2, 5]
    samples, versions = check_topics(settings)
    assert "has 2 partitions, the events have 3" in samples
    assert "versions have one order" in versions


def test_several_may_apply_at_once(settings: KafkaSettings) -> None:
    errors: list[BaseException] = []

    def apply() -> None:
        try:
            apply_topics(settings)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=apply) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert check_topics(settings) == []


def test_more_replicas_than_brokers_names_the_setting(kafka_servers: str, fresh_line: str) -> None:
    settings = KafkaSettings(bootstrap_servers=kafka_servers, topic_prefix=f"{fresh_line}.", replication_factor=3)
    with pytest.raises(ConfigError, match=r"kafka\.replication_factor.*fewer brokers than 3"):
        apply_topics(settings)
