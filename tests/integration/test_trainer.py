"""The trainer process on a real Kafka and a real Valkey, killed as processes are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from lifelong.config.shared import KafkaSettings
from lifelong.contracts import topics
from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample, SampleRecord
from lifelong.contracts.versions import VersionEvent
from lifelong.model.tiny import tiny_random_model
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry
from lifelong.stream.kafka import KafkaSink, KafkaSource

pytestmark = [pytest.mark.kafka]

_WAIT_SECONDS = 120.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)


class Stage:
    """One line on the servers of the session, and the trainer processes that work on it."""

    def __init__(self, folder: Path, kafka: KafkaSettings, redis_url: str, line: str, model: Path) -> None:
        self.kafka = kafka
        self.line = line
        self.registry = Registry(DirectoryStore(folder / "artifacts"), RedisPointers(redis_url))
        self.log = folder / "trainer.log"
        self.environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "LIFELONG_CACHE": str(folder / "cache"),
            "LIFELONG_LINE__NAME": line,
            "LIFELONG_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "LIFELONG_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
            "LIFELONG_REDIS__URL": redis_url,
            "LIFELONG_ARTIFACTS__URL": str(folder / "artifacts"),
            "LIFELONG_MODEL__NAME": str(model),
            "LIFELONG_MODEL__DTYPE": "float32",
            "LIFELONG_MODEL__DEVICE": "cpu",
            "LIFELONG_MODEL__THREADS": "1",
            "LIFELONG_LEARNING__LEARNING_RATE": "0.01",
            "LIFELONG_LEARNING__MAX_STEPS": "4",
            # A random model has no general text to lose.
            "LIFELONG_GATE__GENERAL_TOLERANCE_NATS": "100",
            "LIFELONG_GATE__GENERAL_DRIFT_NATS": "100",
            "LIFELONG_TRAINER__BATCH_SIZE": "4",
        }

    @contextlib.contextmanager
    def trainer(self) -> Iterator[subprocess.Popen[bytes]]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lifelong.trainer"], env=self.environment, stdout=log, stderr=log
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def publish(self, first: int, last: int) -> None:
        """Facts with these source offsets, in both partitions."""
        sink = KafkaSink(self.kafka)
        for number in range(first, last):
            for partition in (0, 1):
                messages = (
                    Message("user", f"What is {number} of {partition}?"),
                    Message("assistant", f"It is {number * 7}."),
                )
                name = f"{partition}-{number}"
                sample = Sample(f"{name}-0", name, time.time(), "fact", messages, until_known=True)
                record = SampleRecord(topics.EVENTS.name, partition, number, number + 1, "sample", (sample,))
                sink.send(topics.SAMPLES.name, msgspec.json.encode(record), partition=partition)
        sink.flush()
        sink.close()

    def num_versions(self) -> int:
        return len(self.registry.versions(self.line))

    def learnt(self) -> Counter[str]:
        manifests = self.registry.versions(self.line)
        return Counter(name for m in manifests for batch in m.batches for name in batch.samples)

    def announced(self) -> list[VersionEvent]:
        source = KafkaSource(self.kafka, [topics.VERSIONS.name])
        source.seek({})
        records = []
        wanted = sum(source.end_positions().values())
        while len(records) < wanted:
            records += source.poll(1.0)
        source.close()
        return [msgspec.json.decode(record.value or b"", type=VersionEvent) for record in records]


@pytest.fixture
def stage(tmp_path: Path, kafka_settings: KafkaSettings, redis_url: str, fresh_line: str) -> Stage:
    model = tmp_path / "model"
    tiny_random_model(0, model)
    return Stage(tmp_path, kafka_settings, redis_url, fresh_line, model)


def test_samples_are_learnt_and_the_version_goes_live(stage: Stage) -> None:
    with stage.trainer() as process:
        stage.publish(0, 3)
        wait_until(lambda: stage.learnt().total() == 6, f"six samples learnt\n{stage.log}")
        newest = stage.registry.newest(stage.line)
        assert newest is not None
        wait_until(lambda: stage.registry.state(stage.line).live == newest.number, "the newest version live")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert newest.watermarks == {0: 3, 1: 3}
    assert newest.counts == {"sample": 6, "trained": 6}
    for name in newest.files:
        stage.registry.weights(newest, name)
    announced = [(event.number, event.change) for event in stage.announced()]
    numbers = range(1, newest.number + 1)
    assert announced == [(number, change) for number in numbers for change in ("committed", "promoted")]


def test_killed_in_the_middle_of_learning_each_sample_counts_once(stage: Stage) -> None:
    num_each = 24
    stage.publish(0, num_each)
    kills = 0
    # Killed after the first and the fourth version: wherever it is then, mostly in the middle of the next.
    for num_versions in (1, 4):
        with stage.trainer() as process:
            wait_until(lambda n=num_versions: stage.num_versions() >= n, f"{num_versions} versions\n{stage.log}")
            process.kill()
            process.wait()
            kills += 1
    with stage.trainer():
        wait_until(lambda: stage.learnt().total() >= 2 * num_each, f"everything learnt\n{stage.log}")
        newest = stage.registry.newest(stage.line)
        assert newest is not None
        wait_until(lambda: stage.registry.state(stage.line).live == newest.number, "the newest version live")
    assert stage.learnt() == {f"{partition}-{n}-0": 1 for n in range(num_each) for partition in (0, 1)}
    assert newest.watermarks == {0: num_each, 1: num_each}
    assert newest.counts["trained"] == 2 * num_each
    epochs = [manifest.epoch for manifest in stage.registry.versions(stage.line)]
    assert epochs == sorted(epochs)
    assert epochs[-1] > kills


def test_a_second_trainer_waits_and_takes_over(stage: Stage) -> None:
    with stage.trainer() as first:
        stage.publish(0, 2)
        wait_until(lambda: stage.learnt().total() == 4, f"four samples learnt\n{stage.log}")
        with stage.trainer() as second:
            wait_until(lambda: b"waiting" in stage.log.read_bytes(), "the second waits")
            stage.publish(2, 4)
            wait_until(lambda: stage.learnt().total() == 8, "the first goes on")
            first.kill()
            stage.publish(4, 6)
            wait_until(lambda: stage.learnt().total() == 12, f"the second goes on\n{stage.log}")
            assert second.poll() is None
    assert set(stage.learnt().values()) == {1}
    epochs = [manifest.epoch for manifest in stage.registry.versions(stage.line)]
    assert epochs[0] < epochs[-1]
