"""The examples for other Kafka clients, run as a reader would run them, against a real broker."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.programs import node_modules, program

from lifelong.config.shared import KafkaSettings
from lifelong.contracts import examples, topics
from lifelong.contracts.codec import decode, decode_event, encode, encode_event
from lifelong.contracts.events import Event, Fact
from lifelong.contracts.requests import Output, Request
from lifelong.stream.base import Record
from lifelong.stream.kafka import KafkaSink, KafkaSource

pytestmark = pytest.mark.kafka

EXAMPLES = Path(__file__).parents[2] / "examples"
FACT = Fact(subject='the "Pro" plan', relation="Preis in €", object="29 euros\na month")
USERS = [f"user-{number}" for number in range(12)]


@pytest.fixture
def environ(kafka_settings: KafkaSettings) -> dict[str, str]:
    return {**os.environ, "KAFKA": kafka_settings.bootstrap_servers, "TOPIC_PREFIX": kafka_settings.topic_prefix}


@pytest.fixture
def sink(kafka_settings: KafkaSettings) -> Iterator[KafkaSink]:
    sink = KafkaSink(kafka_settings)
    yield sink
    sink.close()


def run(command: list[str], environ: dict[str, str], given: str | None = None) -> str:
    done = subprocess.run(command, env=environ, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def records(settings: KafkaSettings, topic: str, number: int) -> list[Record]:
    """The first ``number`` records of the topic; waits until they are there."""
    source, found = KafkaSource(settings, [topic]), list[Record]()
    try:
        source.seek({})
        while len(found) < number:
            found += source.poll(1)
    finally:
        source.close()
    assert len(found) == number
    return found


def event(record: Record) -> Event:
    return decode_event(record.value, record.headers, record_time=record.time, max_bytes=1_000_000)


def kcat_publish(environ: dict[str, str], key: str) -> None:
    program("kcat", "apt install kcat")
    # Over several lines, as people write it.
    data = json.dumps(msgspec.to_builtins(FACT), indent=2, ensure_ascii=False)
    run([str(EXAMPLES / "kcat" / "publish.sh"), "lifelong.fact", key], environ, data)


def node(script: str, *arguments: str) -> list[str]:
    return [node_modules(EXAMPLES / "node"), str(EXAMPLES / "node" / script), *arguments]


def node_publish(environ: dict[str, str], key: str) -> None:
    run(node("publish.mjs", "lifelong.fact", key, msgspec.json.encode(FACT).decode()), environ)


@pytest.mark.parametrize("publish", [kcat_publish, node_publish], ids=["kcat", "node"])
def test_events_arrive_as_they_were_meant(
    publish: object, environ: dict[str, str], kafka_settings: KafkaSettings
) -> None:
    assert callable(publish)
    publish(environ, "ada")
    (record,) = records(kafka_settings, topics.EVENTS.name, 1)
    assert record.key == b"ada"
    got = event(record)
    assert got.data == FACT
    assert got.source.startswith("/examples/")
    assert got.type == "lifelong.fact"
    # The time of the event, in whole seconds with kcat, not that of the record.
    assert abs(got.time - record.time) < 60


@pytest.mark.parametrize("publish", [kcat_publish, node_publish], ids=["kcat", "node"])
def test_a_key_goes_where_all_clients_send_it(
    publish: object, environ: dict[str, str], kafka_settings: KafkaSettings, sink: KafkaSink
) -> None:
    """Else events of one key, published by two kinds of client, would not be in order."""
    assert callable(publish)
    value, headers = encode_event(examples.event(FACT))
    for user in USERS:
        sink.send(topics.EVENTS.name, value, key=user.encode(), headers=headers)
        publish(environ, user)
    sink.flush()
    places: dict[bytes | None, set[int]] = {}
    for record in records(kafka_settings, topics.EVENTS.name, 2 * len(USERS)):
        places.setdefault(record.key, set()).add(record.partition)
    assert {len(partitions) for partitions in places.values()} == {1}
    assert set.union(*places.values()) == {0, 1}


def test_kcat_asks(environ: dict[str, str], kafka_settings: KafkaSettings) -> None:
    program("kcat", "apt install kcat")
    messages = msgspec.json.encode(examples.REQUEST.messages).decode()
    request_id = run([str(EXAMPLES / "kcat" / "ask.sh"), messages], environ).strip()
    (record,) = records(kafka_settings, topics.REQUESTS.name, 1)
    assert decode(record.value, Request) == Request(id=request_id, messages=examples.REQUEST.messages)


@pytest.fixture
def outputs(sink: KafkaSink) -> list[Output]:
    """Three answers on the outputs topic, the last of them long enough to be compressed."""
    long = msgspec.structs.replace(examples.OUTPUT, id="out-3", answer=" and so on" * 1000)
    sent = [examples.OUTPUT, msgspec.structs.replace(examples.OUTPUT, id="out-2", answer="Grüße 😀\nZeile"), long]
    for output in sent:
        sink.send(topics.OUTPUTS.name, encode(output), key=output.request_id.encode())
        sink.flush()
    return sent


def read(lines: str) -> list[Output]:
    return [decode(line.encode(), Output) for line in lines.splitlines()]


def test_kcat_prints_the_outputs(environ: dict[str, str], outputs: list[Output]) -> None:
    program("kcat", "apt install kcat")
    assert read(run([str(EXAMPLES / "kcat" / "outputs.sh"), "--once"], environ)) == outputs


def test_node_prints_the_outputs(environ: dict[str, str], outputs: list[Output]) -> None:
    assert read(run(node("outputs.mjs", "--all", "--count", "3"), environ)) == outputs


def test_wrong_use_is_explained(environ: dict[str, str]) -> None:
    for command in (
        [str(EXAMPLES / "kcat" / "publish.sh")],
        [str(EXAMPLES / "kcat" / "ask.sh")],
        [str(EXAMPLES / "kcat" / "outputs.sh"), "--what"],
        node("publish.mjs"),
    ):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, input="")
        assert done.returncode != 0
        assert "usage: " in done.stderr


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (EXAMPLES / "node" / "package-lock.json").read_text()
