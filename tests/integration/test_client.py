"""The client and the topic commands on a real Kafka."""

from __future__ import annotations

import pytest

from lifelong.client import Client
from lifelong.config.shared import KafkaSettings
from lifelong.contracts import topics
from lifelong.contracts.codec import encode
from lifelong.contracts.events import Document
from lifelong.contracts.requests import Output
from lifelong.stream.admin import apply_topics, check_topics
from lifelong.stream.kafka import KafkaSink, KafkaSource

pytestmark = pytest.mark.kafka


def output(number: int) -> Output:
    return Output(
        id=f"o{number}", request_id=f"r{number}", version="lifelong@1", base="tiny", messages=(), answer=str(number),
        finish_reason="stop", created=1.0,
    )  # fmt: skip


def put(settings: KafkaSettings, *numbers: int) -> None:
    sink = KafkaSink(settings)
    try:
        for number in numbers:
            sink.send(topics.OUTPUTS.name, encode(output(number)), key=b"k")
        sink.flush()
    finally:
        sink.close()


def test_outputs_are_followed_from_now_or_from_the_beginning(kafka_settings: KafkaSettings) -> None:
    put(kafka_settings, 1, 2)
    with Client(kafka=kafka_settings) as client:
        old = [o.answer for o in client.outputs(from_beginning=True, idle_seconds=2)]
        assert old == ["1", "2"]

        now = client.outputs(idle_seconds=2)
        put(kafka_settings, 3)
        assert [o.answer for o in now] == ["3"]


def test_what_is_published_is_there(kafka_settings: KafkaSettings) -> None:
    with Client(kafka=kafka_settings) as client:
        ids = client.publish(Document(text="one"), Document(text="two"), key="same")
    source = KafkaSource(kafka_settings, [topics.EVENTS.name])
    try:
        source.seek({})
        records = []
        while len(records) < 2:
            records += source.poll(5)
        assert [dict(record.headers)["ce_id"].decode() for record in records] == ids
    finally:
        source.close()


def test_topics_are_created_once_and_checked(kafka_servers: str, fresh_line: str) -> None:
    settings = KafkaSettings(bootstrap_servers=kafka_servers, topic_prefix=f"{fresh_line}.", partitions=2)
    assert all("missing" in problem for problem in check_topics(settings))
    assert len(apply_topics(settings)) == len(topics.TOPICS)
    assert apply_topics(settings) == []
    assert check_topics(settings) == []
    more = KafkaSettings(bootstrap_servers=kafka_servers, topic_prefix=f"{fresh_line}.", partitions=3)
    problems = check_topics(more)
    assert any("events" in problem and "2 partitions" in problem for problem in problems)
