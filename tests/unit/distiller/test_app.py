"""The wired distiller on a stream, a store and pointers in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from lifelong.contracts import metrics as names
from lifelong.contracts import topics
from lifelong.contracts.codec import decode, encode
from lifelong.contracts.samples import SampleRecord
from lifelong.contracts.versions import Manifest, VersionEvent
from lifelong.distiller.app import DistillerApp
from lifelong.distiller.config import DistillerSettings, Settings
from lifelong.errors import ConfigError, FencedError, UnreachableError
from lifelong.inference.versions import Versions
from lifelong.model.adapter import adapter_files, adapter_state, add_adapter, load_adapter_state
from lifelong.model.base import BaseModel, view_of
from lifelong.model.batching_engine import BatchingEngine
from lifelong.model.hashing import combined_sha256, tensor_hashes
from lifelong.model.sampling import SamplingParams
from lifelong.model.settings import AdapterSettings, EngineSettings, ModelSettings
from lifelong.registry.in_memory import InMemoryStore
from lifelong.registry.local import LocalPointers
from lifelong.registry.registry import Registry
from lifelong.runtime.clock import ManualClock
from lifelong.runtime.health import Health
from lifelong.runtime.metrics import Metrics
from lifelong.stream.memory import MemoryBroker

ADAPTER = AdapterSettings(rank=4, alpha=8)
LINE, STUDENT = "lifelong", "lifelong-student"


class Killed(Exception):
    pass


class Patient:
    """A source on which waiting moves the clock, and which stops the app when nothing has come for a while."""

    def __init__(self, inner: Any, clock: ManualClock, stop: threading.Event) -> None:
        self._inner, self._clock, self._stop = inner, clock, stop
        self._num_empty = 0

    def poll(self, timeout_seconds: float, max_records: int = 500) -> Any:
        records = self._inner.poll(timeout_seconds, max_records)
        self._num_empty = 0 if records else self._num_empty + 1
        if not records:
            self._clock.advance(timeout_seconds)
        if self._num_empty > 20:
            self._stop.set()
        return records

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Failing:
    """Any part: raises at the chosen call, once, before or after the call is done."""

    def __init__(self, inner: Any, name: str, *, at: int, after: bool, error: Exception) -> None:
        self._inner, self._name, self._left, self._after, self._error = inner, name, at, after, error

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name != self._name:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise self._error
            result = found(*args, **kwargs)
            if self._left == 0:
                raise self._error
            return result

        return call


class World:
    """What outlives a distiller."""

    def __init__(self, folder: Path, base: BaseModel) -> None:
        self.base = base
        self.clock = ManualClock()
        self.broker = MemoryBroker({topics.VERSIONS.name: 1, topics.SAMPLES_DLQ.name: 1}, clock=self.clock)
        self.store, self.pointers = InMemoryStore(), LocalPointers(self.clock)
        self.metrics = Metrics("distiller")
        self.settings = Settings(
            model=ModelSettings(name=str(folder), dtype="float32", device="cpu", threads=1),
            distiller=DistillerSettings(
                rank=4, steps_per_round=6, batch_size=4, min_samples=2, learning_rate=5e-3, max_tokens=64
            ),
        )
        self.epoch = self.pointers.acquire(LINE, "trainer", 1e9, 0)

    @property
    def registry(self) -> Registry:
        return Registry(self.store, self.pointers, self.clock)

    def set(self, **changes: Any) -> None:
        distiller = msgspec.structs.replace(self.settings.distiller, **changes)
        self.settings = msgspec.structs.replace(self.settings, distiller=distiller)

    def teach(self, number: int, **changes: Any) -> Manifest:
        """A live version of the main line, with weights of its own."""
        model = add_adapter(view_of(self.base), ADAPTER, seed=0)
        generator = torch.Generator().manual_seed(number)
        random = {n: 0.3 * torch.randn(t.shape, generator=generator) for n, t in adapter_state(model).items()}
        load_adapter_state(model, random)
        hashes = tensor_hashes(adapter_state(model))
        manifest = Manifest(
            line=LINE, number=number, parent=number - 1, kind="active", base="tiny", base_sha256=self.base.sha256,
            epoch=self.epoch or 0, created=1.0, weights_sha256=combined_sha256(hashes), files={}, folder="",
            watermarks={}, positions={},
        )  # fmt: skip
        manifest = self.registry.commit(msgspec.structs.replace(manifest, **changes), adapter_files(model))
        self.registry.promote(LINE, number, epoch=self.epoch or 0)
        return manifest

    def publish(self, *records: SampleRecord | bytes) -> None:
        for record in records:
            value = record if isinstance(record, bytes) else encode(record)
            self.broker.append(topics.SAMPLES.name, value, None, 0, (), None)

    def app(self, stop: threading.Event, *, store: Any = None, pointers: Any = None, sink: Any = None) -> DistillerApp:
        self.metrics = Metrics("distiller")
        return DistillerApp(
            self.settings,
            source=Patient(self.broker.source([topics.SAMPLES.name]), self.clock, stop),
            sink=sink or self.broker.sink(),
            registry=Registry(store or self.store, pointers or self.pointers, self.clock),
            metrics=self.metrics,
            health=Health("distiller"),
            clock=self.clock,
            heartbeat=False,
        )

    def run(self, **parts: Any) -> None:
        """A distiller, until nothing has come for a while."""
        stop = threading.Event()
        self.app(stop, **parts).run(stop)

    def students(self) -> list[Manifest]:
        return self.registry.versions(STUDENT)

    def announced(self) -> list[tuple[int, str]]:
        events = [decode(record.value, VersionEvent) for record in self.broker.records(topics.VERSIONS.name)]
        return [(event.number, event.change) for event in events]


@pytest.fixture
def world(tiny_folder: Path, base: BaseModel) -> World:
    return World(tiny_folder, base)


@pytest.fixture
def records(new_sample: Any) -> Callable[..., list[SampleRecord]]:
    def make(first: int, last: int) -> list[SampleRecord]:
        return [
            SampleRecord(topics.EVENTS.name, 0, number, number + 1, "sample", (new_sample(number),))
            for number in range(first, last)
        ]

    return make


def test_a_student_is_published_and_goes_live(world: World, records: Any) -> None:
    world.teach(1)
    world.publish(*records(0, 8))
    world.run()
    (student,) = world.students()
    assert (student.kind, student.teacher, student.watermarks, student.positions) == (
        "student", "lifelong@1", {0: 8}, {0: 8},
    )  # fmt: skip
    assert world.registry.state(STUDENT).live == 1
    assert world.registry.state(LINE).live == 1
    assert world.announced() == [(1, "committed"), (1, "promoted")]
    for pointer in ("committed", "live"):
        assert world.metrics.value(names.VERSION, line=STUDENT, pointer=pointer) == 1
    assert world.metrics.value(names.VERSIONS, line=STUDENT, verdict="accepted") == 1
    assert world.metrics.value(names.AGREEMENT) == student.metrics["agreement"]


def test_a_new_teacher_is_followed_and_the_old_one_not_again(world: World, records: Any) -> None:
    world.teach(1)
    world.publish(*records(0, 8))
    world.run()
    world.run()
    assert len(world.students()) == 1
    world.teach(2)
    world.run()
    assert [student.teacher for student in world.students()] == ["lifelong@1", "lifelong@2"]
    assert [student.parent for student in world.students()] == [0, 1]
    assert world.students()[1].weights_sha256 != world.students()[0].weights_sha256


def test_drift_begins_a_round_on_a_stream_that_is_never_quiet(world: World, records: Any) -> None:
    world.set(idle_seconds=1e6, interval_seconds=1e6, on_drift=True)
    world.teach(1)
    world.publish(*records(0, 8))
    world.run()
    assert world.students() == []
    world.teach(2, metrics={"drifts": 1.0})
    world.run()
    assert [student.teacher for student in world.students()] == ["lifelong@2"]
    # Known from the version also to the next process: the same drift is not consolidated again.
    world.teach(3, metrics={"drifts": 1.0})
    world.run()
    world.set(on_drift=False)
    world.teach(4, metrics={"drifts": 2.0})
    world.run()
    assert len(world.students()) == 1


def test_without_a_version_or_without_samples_nothing_is_distilled(world: World, records: Any) -> None:
    world.publish(*records(0, 8))
    world.run()
    assert world.students() == []
    other = World(Path(world.settings.model.name), world.base)
    other.teach(1)
    other.run()
    assert other.students() == []


@pytest.mark.parametrize(
    ("part", "call", "after"),
    [
        ("store", "put", True),
        ("store", "commit", False),
        ("store", "commit", True),
        ("pointers", "move", False),
        ("pointers", "move", True),
        ("sink", "flush", False),
    ],
)
def test_killed_anywhere_it_goes_on_as_if_it_had_not_been(
    world: World, tiny_folder: Path, records: Any, part: str, call: str, after: bool
) -> None:
    calm = World(tiny_folder, world.base)
    for one in (calm, world):
        one.teach(1)
        one.publish(*records(0, 8))
    calm.run()
    inner = {"store": world.store, "pointers": world.pointers, "sink": world.broker.sink()}[part]
    with pytest.raises(Killed):
        world.run(**{part: Failing(inner, call, at=1, after=after, error=Killed())})
    world.clock.advance(60)  # its lease, which nobody renews
    world.run()
    for one in (calm, world):
        one.teach(2)
        one.publish(*records(8, 12))
        one.run()
    assert [student.weights_sha256 for student in world.students()] == [s.weights_sha256 for s in calm.students()]
    assert world.students()[-1].watermarks == {0: 12}
    assert world.registry.state(STUDENT).live == 2
    assert {(1, "promoted"), (2, "promoted")} <= set(world.announced())


@pytest.mark.parametrize(
    ("part", "call"), [("store", "put"), ("pointers", "move"), ("pointers", "read"), ("sink", "flush")]
)
def test_a_server_that_is_away_is_waited_for(
    world: World, records: Any, monkeypatch: pytest.MonkeyPatch, part: str, call: str
) -> None:
    monkeypatch.setattr("lifelong.distiller.app._RETRY_SECONDS", 0.0)
    world.teach(1)
    world.publish(*records(0, 8))
    inner = {"store": world.store, "pointers": world.pointers, "sink": world.broker.sink()}[part]
    # The first reads of the pointers belong to recovery.
    at = 4 if call == "read" else 1
    world.run(**{part: Failing(inner, call, at=at, after=False, error=UnreachableError("away"))})
    assert world.registry.state(STUDENT).live == 1
    assert set(world.announced()) == {(1, "committed"), (1, "promoted")}


def test_a_broker_that_is_away_for_a_dead_letter_costs_no_record_after_it(
    world: World, records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifelong.distiller.app._RETRY_SECONDS", 0.0)
    world.teach(1)
    world.publish(*records(0, 4), b"\xff not JSON", *records(4, 8))
    sink = Failing(world.broker.sink(), "flush", at=1, after=False, error=UnreachableError("away"))
    world.run(sink=sink)
    (student,) = world.students()
    assert student.watermarks == {0: 8}
    letters = world.broker.records(topics.SAMPLES_DLQ.name)
    assert {letter.value for letter in letters} == {b"\xff not JSON"}
    assert dict(letters[0].headers)[topics.DLQ_HEADER_OFFSET] == b"4"


def test_another_writer_ends_this_one(world: World, records: Any) -> None:
    world.teach(1)
    world.publish(*records(0, 8))

    class Usurped:
        def __getattr__(self, name: str) -> Any:
            if name == "put":
                world.clock.advance(60)
                assert world.pointers.acquire(STUDENT, "usurper", 10.0, 0)
            return getattr(world.store, name)

    with pytest.raises(FencedError):
        world.run(store=Usurped())
    assert world.students() == []


@pytest.mark.parametrize("learning_rate", [30.0, 1e30])
def test_a_round_that_makes_it_worse_does_not_go_live(world: World, records: Any, learning_rate: float) -> None:
    """At 1e30 what it says is no number any more."""
    world.teach(1)
    world.publish(*records(0, 8))
    world.run()
    world.teach(2)
    world.set(learning_rate=learning_rate, steps_per_round=2)
    world.run()
    good, bad = world.students()
    assert bad.verdict is not None
    assert not bad.verdict.accepted
    assert bad.weights_sha256 == good.weights_sha256
    assert world.registry.state(STUDENT).live == 1
    assert world.announced()[-1] == (2, "rejected")
    assert world.metrics.value(names.VERSION, line=STUDENT, pointer="committed") == 2
    assert world.metrics.value(names.VERSION, line=STUDENT, pointer="live") == 1


def test_an_operators_hold_keeps_the_live_student(world: World, records: Any) -> None:
    world.teach(1)
    world.publish(*records(0, 8))
    world.run()
    world.registry.hold(STUDENT, 1)
    world.teach(2)
    world.run()
    state = world.registry.state(STUDENT)
    assert (state.live, state.candidate) == (1, 2)
    assert world.announced()[-1] == (2, "committed")


def test_a_teacher_that_cannot_be_read_is_passed_over(world: World, records: Any) -> None:
    world.store.drop(world.teach(1).folder)
    world.publish(*records(0, 8))
    world.run()
    assert world.students() == []
    world.teach(2)
    world.run()
    assert [student.teacher for student in world.students()] == ["lifelong@2"]


def test_another_base_is_refused(world: World, records: Any) -> None:
    world.teach(1, base_sha256="0" * 64)
    world.publish(*records(0, 8))
    with pytest.raises(ConfigError, match=r"model\.name"):
        world.run()
    assert world.students() == []


@pytest.mark.parametrize(("field", "value"), [("rank", 8), ("keep_layers", 0.3)])
def test_a_student_keeps_its_shape(world: World, records: Any, field: str, value: Any) -> None:
    world.teach(1)
    world.publish(*records(0, 8))
    world.run()
    world.set(**{field: value})
    with pytest.raises(ConfigError, match=rf"distiller\.{field}"):
        world.run()


def test_inference_serves_the_student(world: World, records: Any) -> None:
    world.teach(1)
    world.publish(*records(0, 8))
    world.run()
    engine_settings = EngineSettings(
        max_requests=4, max_batch_requests=4, max_batch_tokens=64, cache_tokens=256, page_tokens=16
    )
    engine = BatchingEngine(world.base, ADAPTER, engine_settings)
    try:
        versions = Versions(
            engine, world.base, world.registry, Metrics("inference"), line=LINE, student_line=STUDENT, num_hot=2,
            num_pinned=2,
        )  # fmt: skip
        versions.refresh()
        assert versions.trouble == {}
        held = versions.hold(STUDENT)
        assert held.generation.key == f"{STUDENT}@1"
        assert held.manifest == world.students()[0]
        prompt = world.base.tokenizer("What is 3?")["input_ids"]
        running = engine.submit(held.generation, prompt, SamplingParams(max_tokens=5))
        assert running.result(timeout=60)
        held.generation.release()
    finally:
        engine.close()
