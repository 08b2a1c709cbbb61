"""The collector as a process, on a real Kafka and a real Valkey."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from lifelong.collector.app import build, connect, group_id
from lifelong.collector.config import CollectorSettings, Settings
from lifelong.config.shared import KafkaSettings, LineSettings, RedisSettings
from lifelong.contracts import topics
from lifelong.contracts.codec import decode, encode_event, rfc3339, type_name
from lifelong.contracts.events import Document, Event, EventData, Fact, Forget, Observation
from lifelong.contracts.samples import SampleRecord, coverage
from lifelong.local.child import stop
from lifelong.local.kafka import KafkaBroker
from lifelong.local.ports import free_port
from lifelong.local.valkey import ValkeyServer
from lifelong.memory.redis import RedisMemory
from lifelong.runtime.health import Health
from lifelong.runtime.metrics import Metrics
from lifelong.runtime.process import App
from lifelong.stream.admin import apply_topics
from lifelong.stream.base import Partition, Record
from lifelong.stream.kafka import KafkaGroupSource, KafkaSink, KafkaSource

pytestmark = pytest.mark.kafka

EVENTS, SAMPLES, LETTERS = topics.EVENTS.name, topics.SAMPLES.name, topics.EVENTS_DLQ.name
NUM_PARTITIONS = 2
PATIENCE_SECONDS = 120


def event(data: EventData, event_id: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    return encode_event(Event(id=event_id, source="/test", type=type_name(data), data=data, time=time.time()))


def fact(number: int) -> Fact:
    return Fact(subject=f"thing {number}", relation="colour", object=f"colour {number}")


class Log:
    """A topic as it grows, read from its beginning."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._source = KafkaSource(kafka, [topic])
        self._source.seek({})
        self.records: list[Record] = []

    def until(self, enough: Callable[[list[Record]], bool], alive: Callable[[], bool] = lambda: True) -> list[Record]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not enough(self.records):
            assert time.monotonic() < deadline, f"only {len(self.records)} records came"
            assert alive(), "the collector has ended"
            self.records += self._source.poll(0.2)
        return self.records

    def close(self) -> None:
        self._source.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def taken(records: Sequence[Record]) -> dict[int, list[SampleRecord]]:
    """What a reader with watermarks takes in, by partition; a gap fails."""
    found: dict[int, list[SampleRecord]] = {partition: [] for partition in range(NUM_PARTITIONS)}
    watermarks = dict.fromkeys(range(NUM_PARTITIONS), 0)
    for record in records:
        account = decode(record.value, SampleRecord)
        assert account.source_partition == record.partition
        case = coverage(account, watermarks[record.partition])
        assert case != "gap"
        if case == "new":
            watermarks[record.partition] = account.to_offset
            found[record.partition].append(account)
    return found


def num_covered(records: Sequence[Record]) -> int:
    return sum(accounts[-1].to_offset for accounts in taken(records).values() if accounts)


class Collector:
    """One process."""

    def __init__(self, kafka: KafkaSettings, redis_url: str, line: str, log: Path) -> None:
        environment = {name: text for name, text in os.environ.items() if not name.startswith("LIFELONG_")} | {
            "LIFELONG_LINE__NAME": line,
            "LIFELONG_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "LIFELONG_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
            "LIFELONG_REDIS__URL": redis_url,
            "LIFELONG_COLLECTOR__MAX_POLL_RECORDS": "20",
        }
        self._log_path = log
        self._log = log.open("ab")
        self.process = subprocess.Popen([sys.executable, "-m", "lifelong.collector"], env=environment, stderr=self._log)

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def partitions(self) -> str:
        """Those it has now, as it says in its log."""
        said = re.findall(r"partitions (\[.*?\]|none)", self._log_path.read_text())
        return said[-1] if said else ""

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(60)
        self._log.close()


@contextmanager
def running_app(app: App) -> Iterator[None]:
    """In a thread of this process."""
    told, failures = threading.Event(), []

    def run() -> None:
        try:
            app.run(told)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        told.set()
        thread.join(60)
        app.close()
    assert failures == []


@pytest.fixture
def settings(kafka_settings: KafkaSettings, redis_url: str, fresh_line: str) -> Settings:
    return Settings(
        line=LineSettings(name=fresh_line),
        kafka=kafka_settings,
        redis=RedisSettings(url=redis_url),
        collector=CollectorSettings(poll_seconds=0.1),
    )


@pytest.fixture
def sink(kafka_settings: KafkaSettings) -> Iterator[KafkaSink]:
    opened = KafkaSink(kafka_settings)
    yield opened
    opened.close()


def structured(**attributes: object) -> bytes:
    return json.dumps({"specversion": "1.0", "id": "s", "source": "/s", "type": "lifelong.fact"} | attributes).encode()


GARBAGE: dict[str, tuple[bytes | None, list[tuple[str, bytes]]]] = {
    "empty": (None, []),
    "not-json": (bytes(range(128)), []),
    "not-utf8": ("Größe".encode("latin-1"), []),
    "not-cloudevents": (b'{"hello": "world"}', []),
    "missing-attribute": (b'{"specversion": "1.0", "id": "", "source": "/s", "type": "lifelong.fact"}', []),
    "bad-attribute": (structured(time="yesterday"), []),
    "unknown-type": (structured(type="lifelong.rumour", data={}), []),
    "bad-data": (structured(data={"subject": 1, "relation": [], "object": None}), []),
    "dataref-refused": (structured(dataref="file:///etc/passwd"), []),
    # Ten megabytes that do not compress.
    "too-large": (random.Random(1).randbytes(10 * 1024 * 1024), []),
    "too-short": event(Document(text="?"), "short"),
    "too-long": event(Document(text="x" * 500_000), "long"),
    "repetitive": event(Document(text="Buy now! " * 1000), "spam"),
    "garbled": event(Document(text="\ufffd" * 40), "garbled"),
}


def test_garbage_of_every_kind_gets_its_reason_and_the_stream_goes_on(
    settings: Settings, sink: KafkaSink, redis_url: str, fresh_line: str
) -> None:
    good = 0
    for value, headers in GARBAGE.values():
        sink.send(EVENTS, value, headers=headers, partition=0, key=b"k")
        sink.send(
            EVENTS, event(fact(good), f"good {good}")[0], headers=event(fact(good), f"good {good}")[1], partition=0
        )
        good += 1
    expired = structured(
        id="x", expirytime=rfc3339(time.time() - 60), data={"subject": "a", "relation": "b", "object": "c"}
    )
    sink.send(EVENTS, expired, partition=0)
    sink.flush()
    total = 2 * len(GARBAGE) + 1
    samples, letters = Log(settings.kafka, SAMPLES), Log(settings.kafka, LETTERS)
    with running_app(build(settings)):
        accounts = taken(samples.until(lambda records: len(records) == total))[0]
        found = letters.until(lambda records: len(records) == len(GARBAGE))
    samples.close()
    letters.close()
    assert [account.outcome for account in accounts] == ["dead-letter", "sample"] * len(GARBAGE) + ["expired"]
    assert [account.samples[0].event_id for account in accounts if account.samples] == [
        f"good {i}" for i in range(good)
    ]
    for offset, (reason, (value, _), letter) in enumerate(
        (reason, sent, letter) for (reason, sent), letter in zip(GARBAGE.items(), found, strict=True)
    ):
        headers = dict(letter.headers)
        assert headers[topics.DLQ_HEADER_REASON].decode() == reason
        assert headers[topics.DLQ_HEADER_OFFSET].decode() == str(2 * offset)
        assert headers[topics.DLQ_HEADER_TOPIC].decode() == EVENTS
        assert headers[topics.DLQ_HEADER_DETAIL]
        assert (letter.value, letter.key) == (value, b"k")
    assert len(RedisMemory(redis_url, fresh_line)) == good


def test_killed_in_the_middle_each_of_1000_events_is_accounted_for_once(
    settings: Settings, sink: KafkaSink, redis_url: str, fresh_line: str, tmp_path: Path
) -> None:
    """Killed twice without a word, at moments that nobody chose; every tenth event is published twice."""
    choose = random.Random(5)
    published: dict[int, list[str]] = {0: [], 1: []}

    def publish(numbers: range) -> None:
        for number in numbers:
            partition = choose.randrange(NUM_PARTITIONS)
            for _ in range(2 if number % 10 == 0 else 1):
                value, headers = event(fact(number), f"e{number}")
                sink.send(EVENTS, value, headers=headers, partition=partition)
                published[partition].append(f"e{number}")
        sink.flush()

    # The last of them come later: however quick the machine, something is left when it has been killed.
    publish(range(800))
    log = Log(settings.kafka, SAMPLES)
    for wanted in (150, 500):
        with Collector(settings.kafka, redis_url, fresh_line, tmp_path / "log") as collector:
            log.until(lambda records, wanted=wanted: num_covered(records) >= wanted, collector.is_alive)
            assert collector.end(signal.SIGKILL) == -signal.SIGKILL
    publish(range(800, 1000))
    total = sum(map(len, published.values()))
    with Collector(settings.kafka, redis_url, fresh_line, tmp_path / "log") as last:
        accounts = taken(log.until(lambda records: num_covered(records) == total, last.is_alive))
        assert last.end(signal.SIGTERM) == 0
    log.close()
    for partition, ids in published.items():
        assert [account.event_id for account in accounts[partition]] == ids
        assert [account.to_offset for account in accounts[partition]] == list(range(1, len(ids) + 1))
    samples = [
        sample.event_id for partition in accounts.values() for account in partition for sample in account.samples
    ]
    assert sorted(samples) == sorted(f"e{number}" for number in range(1000))
    assert len(RedisMemory(redis_url, fresh_line)) == 1000
    group = KafkaGroupSource(settings.kafka, [EVENTS], group_id(fresh_line))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(group.assigned()) < NUM_PARTITIONS:
        assert time.monotonic() < deadline
        assert group.poll(0.2) == [], "all of it was committed"
    assert group.assigned() == {Partition(EVENTS, p): len(ids) for p, ids in published.items()}
    group.close()


def test_two_collectors_share_the_work_and_what_was_seen(
    settings: Settings, sink: KafkaSink, redis_url: str, fresh_line: str, tmp_path: Path
) -> None:
    """The same events in both partitions, which two processes read at the same time; one of them leaves half-way."""
    log = Log(settings.kafka, SAMPLES)
    with (
        Collector(settings.kafka, redis_url, fresh_line, tmp_path / "one") as one,
        Collector(settings.kafka, redis_url, fresh_line, tmp_path / "two") as two,
    ):
        wait_until(lambda: {one.partitions(), two.partitions()} == {"[0]", "[1]"})
        for number in range(150):
            for partition in range(NUM_PARTITIONS):
                value, headers = event(fact(number), f"e{number}")
                sink.send(EVENTS, value, headers=headers, partition=partition)
        sink.flush()
        log.until(lambda records: num_covered(records) >= 150, lambda: one.is_alive() and two.is_alive())
        assert one.end(signal.SIGTERM) == 0
        accounts = taken(log.until(lambda records: num_covered(records) == 300, two.is_alive))
        assert two.end(signal.SIGTERM) == 0
    log.close()
    assert [len(accounts[p]) for p in range(NUM_PARTITIONS)] == [150, 150]
    samples = [
        sample.event_id for partition in accounts.values() for account in partition for sample in account.samples
    ]
    assert sorted(samples) == sorted(f"e{number}" for number in range(150))


def test_servers_that_go_away_and_come_back_cost_nothing(tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path / "kafka", tmp_path / "kafka.log", free_port(), free_port())
    valkey = ValkeyServer(tmp_path / "valkey", tmp_path / "valkey.log", free_port())
    running = {"valkey": valkey.start(), "broker": broker.start()}
    kafka = KafkaSettings(bootstrap_servers=broker.address, partitions=NUM_PARTITIONS)
    own = CollectorSettings(poll_seconds=0.1, max_poll_records=5, max_backoff_seconds=0.5)
    settings = Settings(kafka=kafka, redis=RedisSettings(url=valkey.url), collector=own)
    apply_topics(kafka)

    def publish(first: int, end: int) -> None:
        sink = KafkaSink(kafka)
        for number in range(first, end):
            value, headers = event(fact(number), f"e{number}")
            sink.send(EVENTS, value, headers=headers, partition=number % NUM_PARTITIONS)
        sink.flush()
        sink.close()

    try:
        metrics, health = Metrics("collector"), Health("collector")
        with running_app(connect(settings, metrics, health)):
            log = Log(kafka, SAMPLES)
            publish(0, 20)
            log.until(lambda records: num_covered(records) == 20)
            stop(running["valkey"])
            publish(20, 40)
            wait_until(lambda: "Redis" in (health.failure or ""))
            running["valkey"] = valkey.start()
            log.until(lambda records: num_covered(records) == 40)
            wait_until(lambda: health.failure is None)
            publish(40, 1000)
            log.until(lambda records: num_covered(records) >= 100)
            stop(running["broker"])
            log.close()
            running["broker"] = broker.start()
            log = Log(kafka, SAMPLES)
            accounts = taken(log.until(lambda records: num_covered(records) == 1000))
            log.close()
    finally:
        for child in running.values():
            stop(child)
    learned = [account.samples[0].event_id for partition in accounts.values() for account in partition]
    assert sorted(learned) == sorted(f"e{number}" for number in range(1000))


def test_halves_and_forgetting_across_a_restart(
    settings: Settings, sink: KafkaSink, redis_url: str, fresh_line: str
) -> None:
    def publish(data: EventData, event_id: str) -> None:
        value, headers = event(data, event_id)
        sink.send(EVENTS, value, headers=headers, partition=1)
        sink.flush()

    log = Log(settings.kafka, SAMPLES)
    publish(Observation(task="topic", input="My invoice is wrong", observation_id="t7"), "in")
    publish(fact(1), "unwanted")
    with running_app(build(settings)):
        log.until(lambda records: len(records) == 2)
    memory = RedisMemory(redis_url, fresh_line)
    assert memory.get("1-1-0") is not None
    publish(Observation(task="topic", label="billing", observation_id="t7"), "out")
    publish(Forget(event_ids=("unwanted",)), "forget")
    with running_app(build(settings)):
        accounts = taken(log.until(lambda records: len(records) == 4))[1]
    log.close()
    assert [account.outcome for account in accounts] == ["memory-only", "sample", "sample", "forget"]
    assert [message.content for message in accounts[2].samples[0].messages] == ["My invoice is wrong", "billing"]
    assert memory.get("1-1-0") is None
    assert len(memory) == 1


def test_the_process_ends_by_its_code_when_settings_are_wrong(tmp_path: Path) -> None:
    environment = os.environ | {"LIFELONG_COLLECTOR__MAX_EVENT_BYTES": "many"}
    done = subprocess.run(
        [sys.executable, "-m", "lifelong.collector"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "collector.max_event_bytes" in done.stderr


def test_the_process_never_loads_torch() -> None:
    script = "import sys, lifelong.collector.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_accounts_of_a_real_topic_have_a_bounded_size(settings: Settings, sink: KafkaSink) -> None:
    """The largest event that is accepted, in the text that grows most when it is written as JSON."""
    words = [f'"{i:05d}"\\' for i in range(13_000)]
    value, headers = event(Document(text=" ".join(words)), "big")
    assert len(value) < settings.collector.max_event_bytes
    sink.send(EVENTS, value, headers=headers, partition=0)
    sink.flush()
    log = Log(settings.kafka, SAMPLES)
    with running_app(build(settings)):
        accounts = taken(log.until(lambda records: len(records) == 1))[0]
    log.close()
    assert accounts[0].outcome == "sample", accounts[0].detail
    assert sum(sample.num_chars for sample in accounts[0].samples) >= 0.9 * len(" ".join(words))
