"""The distiller process on a real Kafka and a real Valkey, killed as processes are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import torch

from lifelong.config.shared import KafkaSettings
from lifelong.contracts import topics
from lifelong.contracts.codec import encode
from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample, SampleRecord
from lifelong.contracts.versions import Manifest, VersionEvent
from lifelong.inference.versions import Versions
from lifelong.model.adapter import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_files,
    adapter_state,
    add_adapter,
    load_adapter_state,
    unpack_settings,
    unpack_state,
)
from lifelong.model.base import BaseModel, load_base, view_of
from lifelong.model.batching_engine import BatchingEngine
from lifelong.model.hashing import weights_sha256
from lifelong.model.sampling import SamplingParams
from lifelong.model.settings import AdapterSettings, EngineSettings, ModelSettings
from lifelong.model.student import build_student
from lifelong.model.tiny import tiny_random_model
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry
from lifelong.runtime.metrics import Metrics
from lifelong.stream.kafka import KafkaSink, KafkaSource

pytestmark = [pytest.mark.kafka]

ADAPTER = AdapterSettings(rank=4, alpha=8)
_WAIT_SECONDS = 120.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)


class Stage:
    """One line on the servers of the session, a trainer that is played by the test, and distiller processes."""

    def __init__(self, folder: Path, kafka: KafkaSettings, redis_url: str, line: str) -> None:
        self.kafka = kafka
        self.line, self.student_line = line, f"{line}-student"
        self.registry = Registry(DirectoryStore(folder / "artifacts"), RedisPointers(redis_url))
        tiny_random_model(0, folder / "model")
        self.base: BaseModel = load_base(ModelSettings(name=str(folder / "model"), dtype="float32", device="cpu"))
        epoch = self.registry.pointers.acquire(line, "test", 600, 0)
        assert epoch is not None
        self.epoch = epoch
        self.log = folder / "distiller.log"
        self.environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "LIFELONG_CACHE": str(folder / "cache"),
            "LIFELONG_LINE__NAME": line,
            "LIFELONG_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "LIFELONG_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
            "LIFELONG_REDIS__URL": redis_url,
            "LIFELONG_ARTIFACTS__URL": str(folder / "artifacts"),
            "LIFELONG_MODEL__NAME": str(folder / "model"),
            "LIFELONG_MODEL__DTYPE": "float32",
            "LIFELONG_MODEL__DEVICE": "cpu",
            "LIFELONG_MODEL__THREADS": "1",
            "LIFELONG_DISTILLER__RANK": "4",
            "LIFELONG_DISTILLER__LEARNING_RATE": "0.005",
            "LIFELONG_DISTILLER__IDLE_SECONDS": "1",
        }

    @contextlib.contextmanager
    def distiller(self, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        with self.log.open("ab") as log:
            environment = self.environment | {
                f"LIFELONG_DISTILLER__{n.upper()}": value for n, value in settings.items()
            }
            process = subprocess.Popen(
                [sys.executable, "-m", "lifelong.distiller"], env=environment, stdout=log, stderr=log
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """And its lease, which would run out in some seconds."""
        process.kill()
        process.wait()
        holder = self.registry.pointers.writer(self.student_line)
        assert holder is not None
        self.registry.pointers.release(self.student_line, holder)

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
                sample = Sample(f"{name}-0", name, time.time(), "fact", messages)
                record = SampleRecord(topics.EVENTS.name, partition, number, number + 1, "sample", (sample,))
                sink.send(topics.SAMPLES.name, encode(record), partition=partition)
        sink.flush()
        sink.close()

    def teach(self, number: int) -> None:
        """A live version of the main line, with weights of its own."""
        model = add_adapter(view_of(self.base), ADAPTER, seed=0)
        generator = torch.Generator().manual_seed(number)
        state = {n: 0.3 * torch.randn(t.shape, generator=generator) for n, t in adapter_state(model).items()}
        load_adapter_state(model, state)
        manifest = Manifest(
            line=self.line, number=number, parent=number - 1, kind="active", base=self.base.name,
            base_sha256=self.base.sha256, epoch=self.epoch, created=time.time(), weights_sha256=weights_sha256(state),
            files={}, folder="", watermarks={}, positions={},
        )  # fmt: skip
        self.registry.commit(manifest, adapter_files(model))
        self.registry.promote(self.line, number, epoch=self.epoch)

    def students(self) -> list[Manifest]:
        return self.registry.versions(self.student_line)

    def live(self) -> int:
        return self.registry.state(self.student_line).live

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
    return Stage(tmp_path, kafka_settings, redis_url, fresh_line)


def test_the_student_of_a_line_goes_live_and_can_be_served(stage: Stage) -> None:
    with stage.distiller() as process:
        stage.teach(1)
        stage.publish(0, 4)
        wait_until(lambda: stage.live() >= 1, f"a live student\n{stage.log}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    student = stage.students()[-1]
    assert (student.line, student.kind, student.teacher) == (stage.student_line, "student", f"{stage.line}@1")
    assert [(e.line, e.number, e.change) for e in stage.announced()] == [
        (stage.student_line, 1, "committed"),
        (stage.student_line, 1, "promoted"),
    ]

    files = {name: stage.registry.weights(student, name) for name in student.files}
    kept = [int(layer) for layer in student.settings["kept_layers"].split(",")]
    assert len(kept) < stage.base.num_layers
    small = build_student(stage.base, kept).base
    assert small.sha256 == student.base_sha256
    model = add_adapter(small, unpack_settings(files[CONFIG_FILE], small.num_layers), seed=9)
    load_adapter_state(model, unpack_state(files[WEIGHTS_FILE]))
    assert weights_sha256(adapter_state(model)) == student.weights_sha256
    prompt = torch.tensor([stage.base.tokenizer("What is 3 of 0?")["input_ids"]])
    expected = model.generate(input_ids=prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, prompt.shape[1] :]

    settings = EngineSettings(
        max_requests=4, max_batch_requests=4, max_batch_tokens=64, cache_tokens=256, page_tokens=16
    )
    engine = BatchingEngine(stage.base, ADAPTER, settings)
    try:
        versions = Versions(
            engine, stage.base, stage.registry, Metrics("inference"), line=stage.line, student_line=stage.student_line,
            num_hot=2, num_pinned=2,
        )  # fmt: skip
        versions.refresh()
        assert versions.trouble == {}
        held = versions.hold(stage.student_line)
        answer = engine.submit(held.generation, prompt[0].tolist(), SamplingParams(max_tokens=8)).result(timeout=60)
        held.generation.release()
    finally:
        engine.close()
    assert answer.text == stage.base.tokenizer.decode(expected, skip_special_tokens=True)


def test_killed_it_goes_on_from_the_newest_student(stage: Stage) -> None:
    def announced() -> set[tuple[int, str]]:
        return {(event.number, event.change) for event in stage.announced()}

    stage.teach(1)
    stage.publish(0, 4)
    # So many steps that the kill finds it in the middle of the round.
    with stage.distiller(steps_per_round="100000") as process:
        wait_until(lambda: b"learns from" in stage.log.read_bytes(), f"a round begun\n{stage.log}")
        stage.kill(process)
    assert stage.students() == []
    with stage.distiller() as process:
        wait_until(lambda: len(stage.students()) == 1, f"a student\n{stage.log}")
        stage.kill(process)
    stage.publish(4, 6)
    stage.teach(2)
    with stage.distiller():
        wait_until(lambda: stage.live() == 2, f"the second student live\n{stage.log}")
        wait_until(lambda: (2, "promoted") in announced(), f"the second student announced\n{stage.log}")
    first, second = stage.students()
    assert (first.teacher, second.teacher) == (f"{stage.line}@1", f"{stage.line}@2")
    assert (first.number, second.number, second.parent) == (1, 2, 1)
    assert first.watermarks == {0: 4, 1: 4}
    assert second.watermarks == {0: 6, 1: 6}
    assert second.counts["samples"] == 12
    assert first.epoch < second.epoch
    assert {(1, "committed"), (1, "promoted"), (2, "promoted")} <= announced()
