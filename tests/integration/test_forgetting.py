"""Collector, trainer and commands on a real Kafka and a real Valkey: from an event to the weights, and out again."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lifelong.cli import app
from lifelong.config.shared import KafkaSettings
from lifelong.contracts.versions import Manifest
from lifelong.memory.redis import RedisMemory
from lifelong.model.tiny import tiny_random_model
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.layout import folder_number
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry
from lifelong.stream.admin import apply_topics

pytestmark = [pytest.mark.kafka]

_WAIT_SECONDS = 120.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)


class Installation:
    def __init__(self, folder: Path, redis_url: str, line: str) -> None:
        self.folder, self.line = folder, line
        self.registry = Registry(DirectoryStore(folder / "artifacts"), RedisPointers(redis_url))
        self.memory = RedisMemory(redis_url, line)

    def run(self, *words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, list(words))
        return result.exit_code, result.output

    def says(self, *words: str) -> str:
        code, output = self.run(*words)
        assert code == 0, output
        return output

    @contextlib.contextmanager
    def running(self, *names: str) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name in names:
                log = stack.enter_context((self.folder / f"{name}.log").open("ab"))
                process = subprocess.Popen([sys.executable, "-m", f"lifelong.{name}"], stdout=log, stderr=log)
                stack.callback(process.wait)
                stack.callback(process.kill)
            yield

    def publish(self, facts: list[dict[str, str]]) -> list[str]:
        file = self.folder / "facts.jsonl"
        file.write_text("\n".join(json.dumps({"type": "lifelong.dialogue", "data": fact}) for fact in facts))
        return self.says("publish", "--file", str(file)).split()

    def newest(self) -> Manifest | None:
        return self.registry.newest(self.line)

    def has_files_of(self, numbers: Sequence[int]) -> bool:
        return any(folder_number(folder) in numbers for folder in self.registry.store.folders(self.line))

    def has_learnt(self, num_samples: int) -> bool:
        newest = self.newest()
        return newest is not None and newest.counts.get("trained", 0) == num_samples


@pytest.fixture
def installation(
    tmp_path: Path, kafka_settings: KafkaSettings, redis_url: str, fresh_line: str, monkeypatch: pytest.MonkeyPatch
) -> Installation:
    tiny_random_model(0, tmp_path / "model", num_layers=2)
    for name, value in {
        "OMP_NUM_THREADS": "1",
        "LIFELONG_CACHE": str(tmp_path / "cache"),
        "LIFELONG_LINE__NAME": fresh_line,
        "LIFELONG_KAFKA__BOOTSTRAP_SERVERS": kafka_settings.bootstrap_servers,
        "LIFELONG_KAFKA__TOPIC_PREFIX": kafka_settings.topic_prefix,
        "LIFELONG_KAFKA__PARTITIONS": "2",
        "LIFELONG_REDIS__URL": redis_url,
        "LIFELONG_ARTIFACTS__URL": str(tmp_path / "artifacts"),
        "LIFELONG_MODEL__NAME": str(tmp_path / "model"),
        "LIFELONG_MODEL__DTYPE": "float32",
        "LIFELONG_MODEL__DEVICE": "cpu",
        "LIFELONG_MODEL__THREADS": "1",
        "LIFELONG_LEARNING__LEARNING_RATE": "0.01",
        "LIFELONG_LEARNING__MAX_STEPS": "2",
        # A random model has no general text to lose.
        "LIFELONG_GATE__GENERAL_TOLERANCE_NATS": "100",
        "LIFELONG_GATE__GENERAL_DRIFT_NATS": "100",
        "LIFELONG_TRAINER__BATCH_SIZE": "4",
        "LIFELONG_TRAINER__ANCHOR_PROMPTS": '["Who are you?"]',
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    assert os.environ["LIFELONG_LINE__NAME"] == fresh_line
    apply_topics(kafka_settings)
    return Installation(tmp_path, redis_url, fresh_line)


def dialogue(number: int, user: str) -> dict[str, object]:
    messages = [{"role": "user", "content": f"Say {number}."}, {"role": "assistant", "content": f"It is {number * 7}."}]
    return {"messages": messages, "user": user}


def test_what_a_user_said_is_traced_verified_and_forgotten(installation: Installation) -> None:
    with installation.running("collector", "trainer"):
        installation.publish([dialogue(number, "bob") for number in range(6)])
        wait_until(lambda: installation.has_learnt(6), "the first six are learnt")
        ids = installation.publish([dialogue(number, "ann" if number == 8 else "bob") for number in range(6, 12)])
        wait_until(lambda: installation.has_learnt(12), "all twelve are learnt")
        before = installation.newest()
        assert before is not None

        found = json.loads(installation.says("lineage", "--event", ids[2], "--json"))
        assert (found["fate"], found["forgotten_in"]) == ("trained", None)
        assert found["versions"][-1] == before.number
        place = f"{found['place']['partition']}:{found['place']['offset']}"
        assert json.loads(installation.says("lineage", "--at", place, "--json")) == found
        traced = installation.says("lineage", f"{installation.line}@{before.number}", "--last", "99")
        assert place in traced.split()
        assert "is what its events make of it" in installation.says("versions", "verify", str(before.number))

        request = installation.says("forget", "--user", "ann", "--at-once").strip()
        wait_until(lambda: installation.has_learnt(11), "Ann's is forgotten")
        forgotten = installation.newest()
        assert forgotten is not None
        assert forgotten.relearned[0] == found["first"]
        wait_until(lambda: installation.registry.state(installation.line).live == forgotten.number, "it is live")
        wait_until(lambda: not installation.has_files_of(forgotten.relearned), "what had learnt it is deleted")

    assert not [c for c in installation.memory.changes(None).changes if c.entry and c.entry.user == "ann"]
    after = json.loads(installation.says("lineage", "--event", ids[2], "--json"))
    assert after["forgotten_in"] == forgotten.number
    assert after["versions"] == [number for number in found["versions"] if number <= before.number]
    told = installation.says("lineage", "--event", request)
    assert "no sample was made of it: forget" in told
    assert "is what its events make of it" in installation.says("versions", "verify", str(forgotten.number))
    everything = json.loads(installation.says("versions", "verify", str(forgotten.number), "--from-base", "--json"))
    assert (everything["samples"], everything["differences"]) == (11, [])


def test_what_is_unknown_is_said(installation: Installation) -> None:
    code, output = installation.run("lineage", "an id", "--event", "another")
    assert code == 2
    assert "one of them" in output
    with pytest.raises(Exception, match="no event with the id 'nobody'"):
        CliRunner().invoke(app, ["lineage", "--event", "nobody"], catch_exceptions=False)
    with pytest.raises(Exception, match="no answer with id 'nothing'"):
        CliRunner().invoke(app, ["lineage", "nothing"], catch_exceptions=False)
