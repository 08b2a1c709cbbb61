"""The wired trainer on a stream, a store and pointers in memory: whatever it dies of, nothing counts twice."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec
import pytest
from tests.unit.trainer.world import Failing, Killed, World

from lifelong.contracts import metrics as names
from lifelong.contracts import topics
from lifelong.errors import FencedError, UnreachableError
from lifelong.learning.gate import GateSettings
from lifelong.learning.settings import LearningSettings
from lifelong.trainer.config import TrainerSettings


@pytest.fixture
def world(tiny_folder) -> World:
    return World(tiny_folder)


def test_samples_become_versions_that_are_live_and_announced(world, fact_stream):
    world.publish(fact_stream(7))
    world.run()
    manifests = world.registry.versions("lifelong")
    assert [len(m.batches[0].samples) for m in manifests] == [3, 3, 1]
    assert [m.batches[0].trigger for m in manifests] == ["size", "size", "idle"]
    assert world.learnt().total() == len(world.learnt()) == 7
    state = world.registry.state("lifelong")
    assert (state.live, state.candidate) == (3, 3)
    assert [(event.number, event.change) for event in world.announced()] == [
        (number, change) for number in (1, 2, 3) for change in ("committed", "promoted")
    ]
    keys = [record.key for record in world.broker.records(topics.VERSIONS.name)]
    assert keys == [b"lifelong@1", b"lifelong@1", b"lifelong@2", b"lifelong@2", b"lifelong@3", b"lifelong@3"]
    assert world.metrics.value(names.VERSION, line="lifelong", pointer="live") == 3
    assert world.metrics.value(names.SAMPLES, fate="trained", task="fact") == 7
    assert world.metrics.value(names.STAGE_SECONDS, stage="commit") == 3


CRASHES: list[tuple[str, str, int, bool]] = [
    ("store", "put", 2, False),
    ("store", "put", 2, True),
    ("store", "commit", 2, False),
    ("store", "commit", 2, True),
    ("pointers", "move", 2, False),
    ("pointers", "move", 2, True),
    ("sink", "send", 3, False),
    ("sink", "flush", 2, True),
]


@pytest.mark.parametrize(("part", "call", "at", "after"), CRASHES)
def test_killed_anywhere_each_sample_counts_once_and_the_weights_are_the_same(
    tiny_folder, fact_stream, part, call, at, after
):
    calm, hit = World(tiny_folder), World(tiny_folder)
    records = fact_stream(9)
    calm.publish(records)
    calm.run()

    hit.publish(records)
    inner = {"store": hit.store, "pointers": hit.pointers, "sink": hit.broker.sink()}[part]
    hit.die(**{part: Failing(inner, call, at=at, after=after, error=Killed())})
    hit.run()

    assert hit.learnt() == calm.learnt()
    assert set(hit.learnt().values()) == {1}
    newest, expected = hit.registry.newest("lifelong"), calm.registry.newest("lifelong")
    # Size triggers only, so the boundaries are the same and with them every byte.
    assert newest.weights_sha256 == expected.weights_sha256
    assert newest.watermarks == expected.watermarks
    assert newest.counts == expected.counts
    assert hit.registry.state("lifelong").live == newest.number == 3
    announced = {(event.number, event.change) for event in hit.announced()}
    assert {(number, "promoted") for number in (1, 2, 3)} <= announced


@pytest.mark.parametrize(
    ("part", "call"),
    [("store", "put"), ("pointers", "move"), ("pointers", "read"), ("sink", "flush"), ("source", "poll")],
)
def test_a_server_that_does_not_answer_is_waited_for(world, fact_stream, monkeypatch, part, call):
    monkeypatch.setattr("lifelong.trainer.app._RETRY_SECONDS", 0.0)
    world.publish(fact_stream(6))
    source = world.broker.source([topics.SAMPLES.name])
    inner = {"store": world.store, "pointers": world.pointers, "sink": world.broker.sink(), "source": source}[part]
    # The reads of `pointers` before the first commit belong to recovery.
    at = 3 if call == "read" else 1
    world.run(**{part: Failing(inner, call, at=at, after=False, error=UnreachableError("away"))})
    assert set(world.learnt().values()) == {1}
    assert world.learnt().total() == 6
    assert world.registry.state("lifelong").live == 2


def test_another_writer_ends_this_one(world, fact_stream):
    """A trainer that was paused past its lease may still write: what it writes is refused."""
    world.publish(fact_stream(6))

    class Usurped:
        def __init__(self, inner) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Callable[..., object]:
            if name == "put":
                world.clock.advance(60)
                assert world.pointers.acquire("lifelong", "usurper", 10.0, 0)
            return getattr(self._inner, name)

    with pytest.raises(FencedError):
        world.run(store=Usurped(world.store))
    assert world.registry.versions("lifelong") == []


def test_a_rejected_batch_makes_a_version_that_does_not_go_live(world, new_record, new_sample):
    world.publish([new_record(number, new_sample(number)) for number in range(3)])
    world.run()
    learning = LearningSettings(learning_rate=3.0, max_steps=2, target_loss_nats=0)
    world.settings = msgspec.structs.replace(world.settings, learning=learning, gate=GateSettings())
    world.publish([new_record(number, new_sample(number)) for number in range(3, 6)])
    world.run()
    good, bad = world.registry.versions("lifelong")
    assert not bad.verdict.accepted
    assert bad.weights_sha256 == good.weights_sha256
    state = world.registry.state("lifelong")
    assert (state.live, state.candidate) == (1, 1)
    assert [(e.number, e.change) for e in world.announced()][-1] == (2, "rejected")
    assert world.metrics.value(names.VERSIONS, line="lifelong", verdict="rejected") == 1
    # Going on from there, good things are learnt again.
    world.settings = World(world.settings.model.name).settings
    world.publish([new_record(number, new_sample(number)) for number in range(6, 9)])
    world.run()
    assert world.registry.state("lifelong").live == 3
    assert set(world.learnt().values()) == {1}


def test_an_operators_hold_keeps_the_live_version(world, fact_stream):
    records = fact_stream(6)
    world.publish(records[:3])
    world.run()
    world.registry.hold("lifelong", 1)
    world.publish(records[3:])
    world.run()
    state = world.registry.state("lifelong")
    assert (state.live, state.candidate) == (1, 2)
    assert (2, "promoted") not in [(event.number, event.change) for event in world.announced()]


def test_what_cannot_be_decoded_is_a_dead_letter_and_a_gap_until_it_is_sent_again(world, new_record, new_sample):
    records = [new_record(number, new_sample(number)) for number in range(3)]
    broken = msgspec.structs.replace(records[1], value=b"\xff not JSON")
    world.publish([records[0], broken, records[2]])
    world.run()
    assert list(world.learnt()) == ["0-0-0"]
    (letter,) = world.broker.records(topics.SAMPLES_DLQ.name)
    assert letter.value == broken.value
    assert dict(letter.headers)[topics.DLQ_HEADER_OFFSET] == b"1"
    assert world.metrics.value(names.SAMPLE_GAPS) == 1
    world.publish(records[1:])
    world.run()
    assert world.learnt() == {"0-0-0": 1, "0-1-0": 1, "0-2-0": 1}


def test_no_more_is_read_than_may_wait(world, fact_stream):
    most = 0
    world.settings = msgspec.structs.replace(
        world.settings, trainer=TrainerSettings(batch_size=2, max_pending_samples=4)
    )
    world.publish(fact_stream(20))
    stop = threading.Event()
    app = world.app(stop)
    source = app._source
    original = source._inner.poll

    def few(timeout_seconds: float, max_records: int = 500):
        nonlocal most
        trainer = app._trainer
        most = max(most, trainer.intake.num_samples)
        return original(timeout_seconds, 3)

    source._inner.poll = few
    app.run(stop)
    assert world.learnt().total() == 20
    assert most < 4
