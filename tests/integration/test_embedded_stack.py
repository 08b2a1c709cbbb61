"""The embedded stack with the real servers; the four processes are stood in for by one that takes the same settings."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
import redis
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import MessageSizeTooLargeError

from lifelong.contracts.topics import EVENTS, MAX_MESSAGE_BYTES
from lifelong.errors import ConfigError, MissingPartError
from lifelong.local.child import AlreadyRunningError, ChildFailedError
from lifelong.local.processes import PROCESSES, Process
from lifelong.local.servers import start_servers
from lifelong.local.stack import LocalStack
from lifelong.local.state import read_state
from lifelong.local.status import StackStatus, health

pytestmark = pytest.mark.kafka

MIB = 1024 * 1024

STAND_IN = """
import os, sys, threading
import msgspec
from lifelong.config.shared import ArtifactSettings, KafkaSettings, MetricsSettings, RedisSettings
from lifelong.model.settings import ModelSettings
from lifelong.runtime.health import Health, HealthServer
from lifelong.runtime.metrics import Metrics
from lifelong.runtime.process import main

class InferenceSettings(msgspec.Struct, frozen=True):
    port: int = 0

class Settings(msgspec.Struct, frozen=True):
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    metrics: MetricsSettings = MetricsSettings()
    model: ModelSettings = ModelSettings()
    inference: InferenceSettings = InferenceSettings()

class App:
    def __init__(self, settings):
        if sys.argv[2:] == ["fail"]:
            raise RuntimeError("this is why")
        self.health = Health(sys.argv[1], lambda: {
            "version": "lifelong@7", "settings": msgspec.to_builtins(settings), "nice": os.nice(0),
            "threads": os.environ["OMP_NUM_THREADS"],
        })
        port = settings.inference.port or settings.metrics.port
        self.server = HealthServer(MetricsSettings(port=port), Metrics(sys.argv[1]), self.health)

    def run(self, stop):
        self.health.ready = True
        stop.wait()

    def close(self):
        if hasattr(self, "server"):
            self.server.close()

main(sys.argv[1], Settings, App)
"""


def stand_ins(tmp_path: Path, *, failing: str = "") -> tuple[Process, ...]:
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    return tuple(
        msgspec.structs.replace(
            process,
            command=(sys.executable, str(path), process.name, *(["fail"] if process.name == failing else [])),
        )
        for process in PROCESSES
    )


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home that is left without a process, whatever the test did."""
    home = tmp_path / "home"
    yield home
    LocalStack(home).down()


def make_topics(bootstrap_servers: str) -> None:
    with KafkaAdminClient(bootstrap_servers=bootstrap_servers) as admin:
        if EVENTS.name not in admin.list_topics():
            admin.create_topics(
                [NewTopic(EVENTS.name, num_partitions=1, replication_factor=1, topic_configs=EVENTS.config())]
            )


def publish(bootstrap_servers: str, *values: bytes) -> None:
    with KafkaProducer(
        bootstrap_servers=bootstrap_servers,
        acks="all",
        max_request_size=4 * MAX_MESSAGE_BYTES,
    ) as producer:
        for future in [producer.send(EVENTS.name, value) for value in values]:
            future.get(60)


def published(bootstrap_servers: str) -> list[bytes]:
    partition = TopicPartition(EVENTS.name, 0)
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers, enable_auto_commit=False, fetch_max_bytes=2 * MAX_MESSAGE_BYTES
    )
    try:
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end = consumer.end_offsets([partition])[partition]
        values: list[bytes] = []
        while len(values) < end:
            for records in consumer.poll(timeout_ms=1000).values():
                values += [record.value for record in records]
        return values
    finally:
        consumer.close()


def test_data_survives_a_stop_a_kill_and_other_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Names that Java and its properties files find hard, in the locale of a bare container.
    tmp_path = tmp_path / "a näme with 日本語 and 🙂"
    monkeypatch.setenv("LC_ALL", "C")
    with start_servers(tmp_path) as servers:
        first = servers
        make_topics(servers.kafka)
        publish(servers.kafka, b"one")
        redis.Redis.from_url(servers.redis).set("key", "one")
    assert not any(map(psutil.pid_exists, first.pids))

    with start_servers(tmp_path) as servers:
        assert (servers.kafka, servers.redis) != (first.kafka, first.redis)
        assert published(servers.kafka) == [b"one"]
        assert redis.Redis.from_url(servers.redis).get("key") == b"one"
        publish(servers.kafka, b"two")
        # What was written to the system survives the process; the disk itself is asked once a second.
        redis.Redis.from_url(servers.redis).set("key", "two")
        for pid in servers.pids:
            os.kill(pid, signal.SIGKILL)

    with start_servers(tmp_path) as servers:
        assert published(servers.kafka) == [b"one", b"two"]
        assert redis.Redis.from_url(servers.redis).get("key") == b"two"


def test_the_broker_takes_what_the_collector_is_to_refuse(tmp_path: Path) -> None:
    with start_servers(tmp_path) as servers:
        make_topics(servers.kafka)
        large = os.urandom(10 * MIB)
        publish(servers.kafka, large, b"after")
        assert published(servers.kafka) == [large, b"after"]
        with pytest.raises(MessageSizeTooLargeError):
            publish(servers.kafka, os.urandom(MAX_MESSAGE_BYTES + MIB))


def test_two_never_work_on_the_same_data(tmp_path: Path) -> None:
    with start_servers(tmp_path) as servers:
        with pytest.raises(AlreadyRunningError, match=r"valkey already runs here as process \d+"):
            start_servers(tmp_path)
        assert redis.Redis.from_url(servers.redis).ping()


def test_a_taken_port_names_who_has_it(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = LocalStack(home, kafka_port=port, processes=())
        with pytest.raises(ConfigError, match=rf"kafka port: port {port} is taken by .* \(process {os.getpid()}\)"):
            stack.up()
    # Valkey was up by then.
    assert read_state(home).children == ()
    assert processes_below(home) == []


def processes_below(home: Path) -> list[str]:
    """Command lines that name the home, of whoever."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if str(home) in command and process.pid != os.getpid():
            found.append(command)
    return found


def pids(status: StackStatus) -> dict[str, int | None]:
    return {process.name: process.pid for process in status.processes}


def test_the_life_of_a_stack(home: Path, tmp_path: Path) -> None:
    told: list[str] = []
    stack = LocalStack(
        home,
        settings={"LIFELONG_LOG__LEVEL": "DEBUG"},
        create_topics=make_topics,
        progress=told.append,
        processes=stand_ins(tmp_path),
    )
    assert not stack.status().running
    stack.down()

    first = stack.up()
    assert first.running
    assert first.ready
    assert first.live_version == "lifelong@7"
    assert [process.name for process in first.processes] == [
        "kafka", "valkey", "collector", "trainer", "inference", "distiller"
    ]  # fmt: skip
    assert "trainer" in told
    assert json.loads(msgspec.json.encode(first))["processes"][0]["state"] == "running"
    publish(first.kafka, b"one")

    # Each process has what it needs to know, and its share of the machine.
    for process in first.processes[2:]:
        assert process.metrics is not None
        base = process.metrics.removesuffix("/metrics")
        assert httpx.get(process.metrics, trust_env=False).status_code == 200
        report = health(base)
        assert report["process"] == process.name
        assert report["settings"]["kafka"]["bootstrap_servers"] == first.kafka
        assert report["settings"]["redis"]["url"] == first.redis
        assert report["settings"]["artifacts"]["url"] == first.artifacts == str(home / "artifacts")
        assert int(report["threads"]) == report["settings"]["model"]["threads"] >= 1
        assert report["nice"] == os.nice(0) + (10 if process.name == "distiller" else 0)
    assert first.process("inference").metrics == f"{first.http}/metrics"

    # Again: nothing is started twice, also by a program that knows nothing of the first.
    assert pids(LocalStack(home, processes=stand_ins(tmp_path)).up()) == pids(first)

    # What was killed is started again, the rest is left alone.
    for victim in ("trainer", "kafka", "valkey"):
        before = stack.status()
        pid = before.process(victim).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while (ended := stack.status()).process(victim).state == "running":
            pass
        assert ended.process(victim).state == "ended"
        assert ended.process(victim).exit_code == -signal.SIGKILL
        assert ended.running == (victim == "trainer")
        assert not ended.ready
        after = stack.up()
        assert after.ready
        assert {name for name, pid in pids(after).items() if pid != pids(before)[name]} == {victim}
        assert (after.kafka, after.redis, after.http) == (first.kafka, first.redis, first.http)
    assert published(first.kafka) == [b"one"]

    stack.down()
    assert processes_below(home) == []
    stopped = stack.status()
    assert not stopped.running
    assert {process.state for process in stopped.processes} == {"stopped"}

    # The addresses that clients were given are still true, and so is the data.
    with stack:
        again = stack.status()
        assert (again.kafka, again.redis, again.http) == (first.kafka, first.redis, first.http)
        assert published(again.kafka) == [b"one"]
    assert processes_below(home) == []


def test_what_dies_at_start_shows_why_and_takes_the_rest_along(home: Path, tmp_path: Path) -> None:
    stack = LocalStack(home, processes=stand_ins(tmp_path, failing="inference"))
    with pytest.raises(ChildFailedError, match=r"(?s)inference ended with code 1\. The end of .*: this is why"):
        stack.up()
    assert processes_below(home) == []
    assert processes_below(tmp_path / "stand_in.py") == []
    assert read_state(home).children == ()


def test_servers_that_are_there_already(home: Path, tmp_path: Path) -> None:
    with start_servers(tmp_path / "theirs") as theirs:
        stack = LocalStack(home, kafka=theirs.kafka, redis=theirs.redis, processes=stand_ins(tmp_path))
        with stack:
            status = stack.status()
            assert status.running
            assert status.ready
            assert (status.kafka, status.redis) == (theirs.kafka, theirs.redis)
            assert "kafka" not in pids(status)
            with pytest.raises(ConfigError, match=r"runs with .* stop it first"):
                LocalStack(home, kafka="127.0.0.1:1", processes=stand_ins(tmp_path)).up()
        # They are theirs to stop.
        assert redis.Redis.from_url(theirs.redis).ping()
        make_topics(theirs.kafka)


@pytest.mark.parametrize("option", [{"kafka": "127.0.0.1:1"}, {"redis": "redis://127.0.0.1:1/0"}])
def test_servers_that_are_not_there(home: Path, option: dict[str, str]) -> None:
    with pytest.raises(MissingPartError, match=r"answers at .*127\.0\.0\.1:1.*: start it"):
        LocalStack(home, processes=(), **option).up()
    assert processes_below(home) == []
