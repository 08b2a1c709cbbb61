"""Two trainers of one line, and what becomes of one that was stalled and wakes up.

That a standby takes over from one that was killed is in ``test_trainer.py``, the rules of leases and epochs in
``tests/conformance/test_registry*.py``. In the one instant between the last look at the epoch and the creation of the
manifest a stalled writer may still make its version: then it is whole, and it is the successor that has to give way.
"""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

import msgspec
import psutil
import pytest
import redis
import torch
from tests.integration.line import Line, Process, wait_until

from lifelong.config.shared import KafkaSettings
from lifelong.contracts import redis_keys, topics
from lifelong.contracts.codec import encode
from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample, SampleRecord
from lifelong.contracts.versions import Manifest, Verdict, VersionEvent
from lifelong.model.adapter import adapter_files, adapter_state, add_adapter, load_adapter_state
from lifelong.model.base import view_of
from lifelong.model.hashing import combined_sha256, tensor_hashes
from lifelong.model.settings import AdapterSettings
from lifelong.stream.kafka import KafkaSink

pytestmark = [pytest.mark.kafka]

# The process stalls itself at the method named, the first time.
STALLING = """
import os, signal
from {module} import {owner}
from lifelong.runtime.process import main
from lifelong.trainer.app import build
from lifelong.trainer.config import Settings

inner = {owner}.{method}

def stalled(*args, **named):
    {owner}.{method} = inner
    os.kill(os.getpid(), signal.SIGSTOP)
    return inner(*args, **named)

{owner}.{method} = stalled
main("trainer", Settings, build)
"""


@pytest.fixture
def line(tmp_path: Path, kafka_settings: KafkaSettings, redis_url: str, fresh_line: str) -> Line:
    return Line(tmp_path, kafka_settings, redis_url, fresh_line)


def publish(line: Line, first: int, last: int) -> None:
    """Samples records of facts with these source offsets, on partition 0."""
    sink = KafkaSink(line.kafka)
    for number in range(first, last):
        messages = (Message("user", f"What is {number}?"), Message("assistant", f"It is {number * 7}."))
        sample = Sample(f"0-{number}-0", f"e{number}", time.time(), "fact", messages, until_known=True)
        record = SampleRecord(topics.EVENTS.name, 0, number, number + 1, "sample", (sample,))
        sink.send(topics.SAMPLES.name, encode(record), partition=0)
    sink.flush()
    sink.close()


def is_stopped(process: Process) -> bool:
    return psutil.Process(process.popen.pid).status() == psutil.STATUS_STOPPED


def announced(line: Line) -> list[VersionEvent]:
    return [msgspec.json.decode(r.value or b"", type=VersionEvent) for r in line.read(topics.VERSIONS.name)]


def test_one_works_one_waits_and_a_stalled_one_that_wakes_up_publishes_nothing(line: Line) -> None:
    publish(line, 0, 4)
    # So many steps that it is in the middle of the micro-batch for as long as the test takes.
    with line.process("trainer", LEARNING__MAX_STEPS="1000000", LEARNING__TARGET_LOSS_NATS="1e-9") as first:
        wait_until(first.is_ready, "the first is ready", first.is_running)
        wait_until(lambda: first.metric("lifelong_steps_total") > 0, "a step", first.is_running)
        holder, state = line.registry.pointers.writer(line.name), line.registry.state(line.name)
        assert holder is not None
        with line.process("trainer") as second:
            wait_until(lambda: holder in second.says(), "the second says who has the lease", second.is_running)
            status, report = second.health("/ready")
            assert (status, report["waits_for"]) == (503, f"{holder} has the lease")
            assert second.health()[0] == 200
            first.signal(signal.SIGSTOP)
            wait_until(second.is_ready, "the lease has run out", second.is_running)
            wait_until(lambda: line.learnt().total() == 4, "the second learns", second.is_running)
            first.signal(signal.SIGCONT)
            assert first.exit_code() == 1
            assert "FencedError: another writer has taken over" in first.says()
            publish(line, 4, 6)
            wait_until(lambda: line.learnt().total() == 6, "the second goes on", second.is_running)
            assert second.stop() == 0
    assert {manifest.epoch for manifest in line.versions()} == {state.epoch + 1}
    assert {event.number for event in announced(line)} == {manifest.number for manifest in line.versions()}
    assert set(line.learnt().values()) == {1}
    assert line.registry.state(line.name).epoch == state.epoch + 1


def test_stalled_while_they_publish(line: Line) -> None:
    """One before its files are written, one before its manifest, one before it moves the pointer, each as successor of
    the one before; they wake up when a fourth has done all of it."""
    publish(line, 0, 4)
    places = (("directory", "DirectoryStore", "put"), ("directory", "DirectoryStore", "commit"))
    places = (*places, ("pointers", "RedisPointers", "move"))
    epochs: dict[str, int] = {}
    with contextlib.ExitStack() as running:
        stalling = {}
        # One after the other: the last of them makes the version, after which there is nothing for another to write.
        for module, owner, method in places:
            code = STALLING.format(module=f"lifelong.registry.{module}", owner=owner, method=method)
            one = stalling[method] = running.enter_context(line.process("trainer", code=code))
            wait_until(lambda one=one: is_stopped(one), f"stalled before {method}", one.is_running)
            epochs[method] = line.registry.state(line.name).epoch
            holder = line.registry.pointers.writer(line.name)
            assert holder is not None
            assert str(one.popen.pid) in holder
            line.registry.pointers.release(line.name, holder)  # It would run out in some seconds.
        successor = running.enter_context(line.process("trainer"))
        publish(line, 4, 6)
        wait_until(lambda: line.learnt().total() == 6, "the last goes on", successor.is_running)
        wait_until(lambda: line.registry.state(line.name).live == line.versions()[-1].number, "the newest is live")
        before = line.registry.state(line.name)
        for one in stalling.values():
            one.signal(signal.SIGCONT)
            assert one.exit_code() == 1
            assert "FencedError" in one.says()
        assert line.registry.state(line.name) == before
        assert successor.stop() == 0
    # Made before its writer was stalled, and promoted by whoever came next.
    assert {manifest.epoch for manifest in line.versions()} == {epochs["move"], before.epoch}
    assert {event.number for event in announced(line)} == {manifest.number for manifest in line.versions()}
    assert set(line.learnt().values()) == {1}


def promote(line: Line, number: int, epoch: int) -> Manifest:
    """A version with weights of its own."""
    model = add_adapter(view_of(line.base), AdapterSettings(rank=4, alpha=8), seed=0)
    generator = torch.Generator().manual_seed(number)
    load_adapter_state(
        model, {name: 0.3 * torch.randn(t.shape, generator=generator) for name, t in adapter_state(model).items()}
    )
    hashes = tensor_hashes(adapter_state(model))
    manifest = Manifest(
        line=line.name, number=number, parent=number - 1, kind="active", base=line.base.name,
        base_sha256=line.base.sha256, epoch=epoch, created=time.time(), tensors=hashes,
        weights_sha256=combined_sha256(hashes), files={}, folder="", watermarks={}, positions={},
        verdict=Verdict(True, "made for a test"), newest_event_time=time.time(),
    )  # fmt: skip
    manifest = line.registry.commit(manifest, adapter_files(model))
    line.registry.promote(line.name, number, epoch=epoch)
    return manifest


def test_a_server_refuses_an_older_epoch(line: Line) -> None:
    epoch = line.registry.pointers.acquire(line.name, "first", 600, 6)
    assert epoch == 7
    promote(line, 1, epoch)
    promote(line, 2, epoch)
    client = redis.Redis.from_url(line.redis_url)
    with line.process("inference") as server:
        wait_until(server.is_ready, "ready", server.is_running)
        assert server.health()[1]["version"] == f"{line.name}@2"
        # As from a backup of Redis that is older than what was served.
        client.hset(redis_keys.pointers(line.name), mapping={"epoch": 6, "live": 1, "candidate": 1})
        wait_until(lambda: line.name in server.health()[1]["trouble"], "the server minds", server.is_running)
        status, report = server.health()
        assert "the pointer is of epoch 6, 7 was seen: not followed" in report["trouble"][line.name]
        assert (status, report["version"]) == (200, f"{line.name}@2")
        line.registry.pointers.release(line.name, "first")
        newer = line.registry.pointers.acquire(line.name, "second", 600, epoch)
        assert newer == 8
        promote(line, 3, newer)
        wait_until(lambda: server.health()[1]["version"] == f"{line.name}@3", "the newer is followed")
        assert server.health()[1]["trouble"] == {}
    client.close()
