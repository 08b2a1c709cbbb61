"""The inference server without its HTTP: the pointers are followed, requests of the topic are answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulation import parts
from tests.simulation.schedule import Event, Schedule, Threading

from lifelong.errors import LifelongError
from lifelong.inference.config import Settings
from lifelong.inference.handler import Answerer
from lifelong.inference.outputs import Outputs
from lifelong.inference.recall import Recall
from lifelong.inference.topics import RequestTopic
from lifelong.inference.versions import Versions
from lifelong.model.base import BaseModel
from lifelong.registry.registry import Registry
from lifelong.runtime.clock import Clock
from lifelong.stream.base import GroupSource, Sink
from lifelong.stream.dead_letters import DeadLetters

_POINTER_SECONDS = 1.0
_DRAIN_SECONDS = 5.0


class ServerApp:
    """Wired as :class:`lifelong.inference.app.InferenceApp`, with an engine that answers at once."""

    def __init__(
        self,
        settings: Settings,
        schedule: Schedule,
        *,
        base: BaseModel,
        registry: Registry,
        requests: GroupSource,
        sink: Sink,
        letter_sink: Sink,
        store: Any,
        clock: Clock,
        note_epoch: Callable[[str, int], None],
    ) -> None:
        metrics: Any = parts.NoMetrics()
        engine: Any = parts.Engine(schedule)
        s = settings.inference
        self._threading = Threading(schedule)
        self._note_epoch = note_epoch
        self.versions = Versions(
            engine,
            base,
            registry,
            metrics,
            line=settings.line.name,
            student_line=settings.line.student,
            num_hot=s.hot_versions,
            num_pinned=s.pinned_versions,
        )
        self._outputs = Outputs(sink, store, max_waiting=s.outputs_waiting, required=s.require_outputs)
        no_index: Any = None  # No request here asks for memory.
        recall = Recall(no_index, settings.memory, clock)
        answerer = Answerer(engine, base, self.versions, recall, metrics, clock, settings)
        letters = DeadLetters(letter_sink, "inference", metrics)
        self._requests = RequestTopic(
            requests, letters, answerer, self._outputs, metrics, clock, at_once=s.topic_requests
        )
        self._sinks = (sink, letter_sink)
        self._failure: BaseException | None = None

    def run(self, stop: Event) -> None:
        self._refresh()
        thread = self._threading.Thread(target=lambda: self._guarded(stop), name="requests")
        thread.start()
        while not stop.wait(_POINTER_SECONDS) and self._failure is None:
            self._refresh()
        thread.join()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        self._requests.close()
        self._outputs.close(_DRAIN_SECONDS)
        for sink in self._sinks:
            sink.close()

    def _guarded(self, stop: Event) -> None:
        try:
            self._requests.run(stop, drain_seconds=_DRAIN_SECONDS)
        except (LifelongError, Exception) as error:
            self._failure = error

    def _refresh(self) -> None:
        self.versions.refresh()
        for line, (restored, epoch) in self.versions._epochs.items():
            self._note_epoch(f"{line} {restored}", epoch)
