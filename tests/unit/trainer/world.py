"""A trainer's world in memory: what outlives it, and what it can die of."""

from __future__ import annotations

import threading
from collections import Counter

import msgspec
import pytest

from lifelong.contracts import topics
from lifelong.contracts.versions import VersionEvent
from lifelong.learning.gate import GateSettings
from lifelong.learning.settings import LearningSettings
from lifelong.model.settings import ModelSettings
from lifelong.registry.in_memory import InMemoryStore
from lifelong.registry.local import LocalPointers
from lifelong.registry.registry import Registry
from lifelong.runtime.clock import ManualClock
from lifelong.runtime.health import Health
from lifelong.runtime.metrics import Metrics
from lifelong.stream.memory import MemoryBroker
from lifelong.trainer.app import TrainerApp
from lifelong.trainer.config import Settings, TrainerSettings


class Killed(Exception):
    pass


class Patient:
    """A source on which waiting moves the clock, and which stops the app when nothing has come for a while."""

    def __init__(self, inner, clock: ManualClock, stop: threading.Event) -> None:
        self._inner = inner
        self._clock = clock
        self._stop = stop
        self._empty = 0

    def poll(self, timeout_seconds: float, max_records: int = 500):
        records = self._inner.poll(timeout_seconds, max_records)
        self._empty = 0 if records else self._empty + 1
        if not records:
            self._clock.advance(timeout_seconds)
        if self._empty > 10:
            self._stop.set()
        return records

    def __getattr__(self, name: str):
        return getattr(self._inner, name)


class Failing:
    """Any store: raises at the chosen call, once, before or after the call is done."""

    def __init__(self, inner, name: str, *, at: int, after: bool, error: Exception) -> None:
        self._inner = inner
        self._name, self._left, self._after, self._error = name, at, after, error

    def __getattr__(self, name: str):
        found = getattr(self._inner, name)
        if name != self._name:
            return found

        def call(*args, **kwargs):
            self._left -= 1
            if self._left == 0 and not self._after:
                raise self._error
            result = found(*args, **kwargs)
            if self._left == 0:
                raise self._error
            return result

        return call


class World:
    """What outlives a trainer."""

    def __init__(self, folder) -> None:
        self.clock = ManualClock()
        self.broker = MemoryBroker({topics.VERSIONS.name: 1, topics.SAMPLES_DLQ.name: 1}, clock=self.clock)
        self.store = InMemoryStore()
        self.pointers = LocalPointers(self.clock)
        self.metrics = Metrics("trainer")
        self.settings = Settings(
            model=ModelSettings(name=str(folder), dtype="float32", device="cpu", threads=1),
            learning=LearningSettings(learning_rate=1e-2, max_steps=3),
            gate=GateSettings(general_tolerance_nats=100, general_drift_nats=100),
            trainer=TrainerSettings(batch_size=3, anchor_prompts=("Who are you?", "What is rain?")),
        )

    @property
    def registry(self) -> Registry:
        return Registry(self.store, self.pointers, self.clock)

    def publish(self, records) -> None:
        for record in records:
            self.broker.append(record.topic, record.value, record.key, record.partition, (), None)

    def app(self, stop: threading.Event, *, store=None, pointers=None, sink=None, source=None) -> TrainerApp:
        self.metrics = Metrics("trainer")
        return TrainerApp(
            self.settings,
            source=Patient(source or self.broker.source([topics.SAMPLES.name]), self.clock, stop),
            sink=sink or self.broker.sink(),
            registry=Registry(store or self.store, pointers or self.pointers, self.clock),
            metrics=self.metrics,
            health=Health("trainer"),
            clock=self.clock,
            history=lambda: self.broker.source([topics.SAMPLES.name]),
            heartbeat=False,
        )

    def run(self, **parts) -> None:
        """A trainer, until nothing has come for a while."""
        stop = threading.Event()
        self.app(stop, **parts).run(stop)

    def die(self, **parts) -> None:
        with pytest.raises(Killed):
            self.run(**parts)
        # Its lease, which nobody renews.
        self.clock.advance(60)

    def learnt(self) -> Counter[str]:
        manifests = self.registry.versions("lifelong")
        return Counter(name for m in manifests for batch in m.batches for name in batch.samples)

    def announced(self) -> list[VersionEvent]:
        return [
            msgspec.json.decode(record.value, type=VersionEvent) for record in self.broker.records(topics.VERSIONS.name)
        ]

    def events_of(self, change: str) -> list[int]:
        """Numbers of the versions of which this was announced, in order."""
        return [event.number for event in self.announced() if event.change == change]
