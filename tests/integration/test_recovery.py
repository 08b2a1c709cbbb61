"""What was lost comes back, and what cannot come back is said exactly.

Processes that are killed are in ``test_trainer.py``, ``test_collector.py``, ``test_distiller.py`` and, from a seed
with every kind of fault, in ``tests/schedules``; a Redis that is lost at any step of the work is in
``tests/unit/collector/test_rebuild.py``. Here Redis is wiped under running processes, and retention passes readers.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from tests.integration.line import Line, wait_until

from lifelong.config.shared import KafkaSettings
from lifelong.contracts import topics
from lifelong.contracts.events import Document, Fact, Forget
from lifelong.local.child import stop
from lifelong.local.ports import free_port
from lifelong.local.valkey import ValkeyServer

pytestmark = [pytest.mark.kafka]

EVENTS, SAMPLES = topics.EVENTS.name, topics.SAMPLES.name


def fact(number: int) -> Fact:
    return Fact(subject=f"thing {number}", relation="colour", object=f"colour {number}")


def note(number: int) -> Document:
    return Document(text=f"Note {number}: the key is under mat {number}.", user="ann")


class Valkey:
    """One of our own: others would miss what is wiped here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = ValkeyServer(folder / "data", folder / "valkey.log", free_port())
        self.child = self.server.start()

    def lose(self) -> None:
        """Stopped, wiped and started again."""
        stop(self.child)
        shutil.rmtree(self.folder / "data")
        self.child = self.server.start()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    running = Valkey(tmp_path / "valkey")
    yield running
    stop(running.child)


@pytest.fixture
def line(tmp_path: Path, kafka_settings: KafkaSettings, redis_url: str, fresh_line: str) -> Line:
    return Line(tmp_path, kafka_settings, redis_url, fresh_line)


def test_a_lost_redis_is_made_again_from_manifests_and_events(
    tmp_path: Path, kafka_settings: KafkaSettings, valkey: Valkey, fresh_line: str
) -> None:
    """Twice: flushed, and stopped, wiped and started again. No process ends, and nobody is told to do anything."""
    line = Line(tmp_path, kafka_settings, valkey.server.url, fresh_line)
    client = redis.Redis.from_url(valkey.server.url)
    with (
        line.process("collector") as collector,
        line.process("trainer") as trainer,
        line.process("inference") as server,
    ):

        def alive() -> bool:
            return collector.is_running() and trainer.is_running() and server.is_running()

        def remembered() -> set[str]:
            return {change.entry_id for change in line.memory.changes(None).changes}

        def is_settled(num_events: int, num_memories: int) -> bool:
            counts = line.counts()
            taken = sum(counts[outcome] for outcome in ("sample", "duplicate", "memory-only", "forget"))
            if taken < num_events or len(line.memory) != num_memories:
                return False
            live = line.registry.state(line.name).live
            _, report = server.health()
            return (live, report["version"], report["memory_entries"], report["trouble"]) == (
                line.versions()[-1].number, f"{line.name}@{live}", num_memories, {},
            )  # fmt: skip

        line.publish([(f"e{number}", fact(number)) for number in range(6)])
        line.publish([("n0", note(0)), ("n1", note(1))])
        wait_until(lambda: is_settled(8, 8), "all is learnt and remembered", alive)
        line.publish([("f", Forget(user="ann"))], partition=1)
        wait_until(lambda: is_settled(9, 6), "what is ann's is forgotten", alive)
        line.publish([("n2", note(2))], partition=0)
        wait_until(lambda: is_settled(10, 7), "what came later is remembered", alive)
        num_events, num_memories, epoch = 10, 7, line.registry.state(line.name).epoch
        for num_lost, lose in enumerate((client.flushall, valkey.lose), 1):
            before = remembered()
            lose()
            # Nothing has to come for that.
            wait_until(lambda b=before: remembered() == b, "what was remembered is again", alive)
            # The first tells whether what was seen is known again, the second whether the trainer goes on.
            line.publish([("e1", fact(1)), (f"new{num_events}", fact(num_events))], partition=0)
            num_events, num_memories = num_events + 2, num_memories + 1
            wait_until(lambda n=num_events, m=num_memories: is_settled(n, m), "and it goes on", alive)
            # The same writer all the time, though its lease was lost with the rest.
            wait_until(lambda n=num_lost: trainer.says().count("is taken up again") == n, "the lease is back", alive)
        outcomes = Counter(account.outcome for account in line.accounts())
        assert outcomes == {"sample": 11, "forget": 1, "duplicate": 2}
        assert set(line.learnt().values()) == {1}
        assert line.registry.state(line.name).epoch == epoch
    client.close()


def delete_before(line: Line, topic: str, partition: int, offset: int) -> None:
    """As retention does, at once."""
    admin = KafkaAdminClient(bootstrap_servers=line.kafka.bootstrap_servers)
    admin.delete_records({TopicPartition(line.kafka.topic_prefix + topic, partition): offset})
    admin.close()


def test_retention_has_passed_the_collector(line: Line) -> None:
    """It stops with the gap, to the offset; told to skip it goes on, and the accounts say what is missing."""
    line.publish([(f"a{number}", fact(number)) for number in range(3)], partition=0)
    with line.process("collector") as collector:
        wait_until(lambda: len(line.accounts()) == 3, "the first are read", collector.is_running)
        assert collector.stop() == 0
    line.publish([(f"b{number}", fact(10 + number)) for number in range(5)], partition=0)
    line.publish([("c", fact(20))], partition=1)
    delete_before(line, EVENTS, 0, 6)
    with line.process("collector") as collector:
        assert collector.exit_code() == 1
        gap = f"{line.kafka.topic_prefix}{EVENTS}, partition 0: offset 3 is wanted, the topic has [6, 8)"
        assert f"StreamGapError: {gap}" in collector.says()
        assert "LIFELONG_COLLECTOR__ON_GAP=skip" in collector.says()
    with line.process("collector", COLLECTOR__ON_GAP="skip") as collector:
        wait_until(lambda: len(line.accounts()) == 7, "it goes on", collector.is_running)
        assert collector.metric("lifelong_events_total", outcome="lost") >= 3
    accounts = sorted((account.source_partition, account.from_offset, account) for account in line.accounts())
    covered = [(partition, at, account.to_offset, account.outcome) for partition, at, account in accounts]
    lost = (0, 3, 6, "lost")
    ours = [(0, n, n + 1, "sample") for n in (0, 1, 2, 6, 7)]
    assert covered == sorted([*ours, lost, (1, 0, 1, "sample")])
    # Now nothing is missing any more, so nothing has to be said.
    line.publish([("d", fact(30))], partition=0)
    with line.process("collector") as collector:
        wait_until(lambda: len(line.accounts()) == 8, "it goes on as ever", collector.is_running)
    with line.process("trainer") as trainer:
        wait_until(lambda: line.counts()["trained"] == 7, "all is learnt that is there", trainer.is_running)
    assert line.counts() == {"sample": 7, "trained": 7, "lost": 3}
    assert line.versions()[-1].watermarks == {0: 9, 1: 1}


def test_retention_has_passed_the_trainer(line: Line) -> None:
    line.publish([(f"a{number}", fact(number)) for number in range(3)], partition=0)
    with line.process("collector") as collector:
        with line.process("trainer") as trainer:
            wait_until(lambda: line.counts()["trained"] == 3, "the first are learnt", trainer.is_running)
            assert trainer.stop() == 0
        line.publish([(f"b{number}", fact(10 + number)) for number in range(5)], partition=0)
        wait_until(lambda: len(line.accounts()) == 8, "the others are there", collector.is_running)
    delete_before(line, SAMPLES, 0, 6)
    with line.process("trainer") as trainer:
        assert trainer.exit_code() == 1
        gap = f"{line.kafka.topic_prefix}{SAMPLES}, partition 0: offset 3 is wanted, the topic has [6, 8)"
        assert f"StreamGapError: {gap}" in trainer.says()
        assert "LIFELONG_TRAINER__ON_GAP=skip" in trainer.says()
    with line.process("trainer", TRAINER__ON_GAP="skip") as trainer:
        wait_until(lambda: line.counts()["trained"] == 5, "what is left is learnt", trainer.is_running)
    assert line.counts() == {"sample": 5, "trained": 5, "lost": 3}
    assert line.versions()[-1].watermarks == {0: 8}
    assert set(line.learnt()) == {f"0-{number}-0" for number in (0, 1, 2, 6, 7)}
