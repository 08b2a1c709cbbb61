"""The inference server on its sockets."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

import uvicorn

from lifelong.contracts import metrics as names
from lifelong.contracts import topics
from lifelong.errors import ConfigError, LifelongError
from lifelong.inference.config import Settings
from lifelong.inference.feedback import FeedbackDesk
from lifelong.inference.handler import Answerer
from lifelong.inference.http import make_http
from lifelong.inference.outputs import Outputs, OutputStore
from lifelong.inference.recall import Recall
from lifelong.inference.topics import RequestTopic
from lifelong.inference.versions import Versions
from lifelong.memory.index import MemoryIndex
from lifelong.memory.redis import RedisMemory
from lifelong.model.base import load_base
from lifelong.model.batching_engine import BatchingEngine
from lifelong.model.embedder import load_embedder
from lifelong.registry.artifacts import open_store
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry
from lifelong.runtime.clock import SystemClock
from lifelong.runtime.health import Health
from lifelong.runtime.metrics import Metrics
from lifelong.stream.dead_letters import DeadLetters
from lifelong.stream.kafka import KafkaGroupSource, KafkaSink

log = logging.getLogger(__name__)

_FEEDBACK_SECONDS = 10.0


class InferenceApp:
    """HTTP, the requests topic, the pointers and the memory: a thread each."""

    def __init__(self, settings: Settings) -> None:
        s = settings.inference
        self._settings = settings
        # First of all: a port that is taken should not cost the loading of a model.
        self._socket = _listen(s.host, s.port)
        clock = SystemClock()
        self._metrics = Metrics("inference")
        self._health = Health("inference", self._details)
        base = load_base(settings.model)
        self._engine = BatchingEngine(base, settings.adapter, settings.engine)
        self._versions = Versions(
            self._engine,
            base,
            Registry(open_store(settings.artifacts), RedisPointers(settings.redis.url), clock),
            self._metrics,
            line=settings.line.name,
            student_line=settings.line.student,
            num_hot=s.hot_versions,
            num_pinned=s.pinned_versions,
        )
        memory = RedisMemory(settings.redis.url, settings.line.name)
        self._index = MemoryIndex(memory, load_embedder(settings.memory.embedder))
        self._memory_trouble: str | None = None
        recall = Recall(self._index, settings.memory, clock)
        self._sink = KafkaSink(settings.kafka)
        store = OutputStore(settings.redis.url, settings.line.name, s.output_days)
        self._outputs = Outputs(self._sink, store, max_waiting=s.outputs_waiting, required=s.require_outputs)
        answerer = Answerer(self._engine, base, self._versions, recall, self._metrics, clock, settings)
        # Sinks of their own: whoever waits for one kind of record must not wait for, or hear of, another.
        self._feedback_sink = KafkaSink(settings.kafka, patience_seconds=_FEEDBACK_SECONDS)
        self._letter_sink = KafkaSink(settings.kafka)
        desk = FeedbackDesk(self._outputs, self._feedback_sink, self._metrics, clock, "lifelong.inference")
        self._requests = RequestTopic(
            KafkaGroupSource(settings.kafka, [topics.REQUESTS.name], f"lifelong.inference.{settings.line.name}"),
            DeadLetters(self._letter_sink, "inference", self._metrics),
            answerer,
            self._outputs,
            self._metrics,
            clock,
            at_once=s.topic_requests,
        )
        http = make_http(
            answerer,
            self._versions,
            self._outputs,
            desk,
            self._health,
            self._metrics,
            api_keys=s.api_keys,
            max_body_bytes=s.max_body_bytes,
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                http,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=max(1, int(s.stop_seconds)),
                lifespan="off",
            )
        )
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        s = self._settings
        self._stop = stop
        self._refresh_versions()
        self._start("http", lambda: self._server.run(sockets=[self._socket]))
        self._start("memory", lambda: self._repeat(self._refresh_memory, s.memory.refresh_seconds, stop))
        self._start("requests", lambda: self._requests.run(stop, drain_seconds=s.inference.stop_seconds))
        host, port = self._socket.getsockname()[:2]
        log.info("answers on http://%s:%d/v1", host, port)
        self._repeat(self._refresh_versions, s.inference.pointer_seconds, stop)
        if self._health.failure:
            raise LifelongError(self._health.failure)

    def close(self) -> None:
        self._stop.set()  # one of the threads may have failed
        self._health.ready = False
        self._server.should_exit = True
        for thread in self._threads:
            thread.join(self._settings.inference.stop_seconds + 5)
        self._requests.close()
        self._outputs.close(self._settings.inference.stop_seconds)
        self._sink.close()
        self._feedback_sink.close()
        self._letter_sink.close()
        self._engine.close()
        self._socket.close()

    def _start(self, name: str, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                log.exception("thread %s has ended", name)
                self._health.failure = f"{name}: {error}"

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _repeat(self, work: Callable[[], None], seconds: float, stop: threading.Event) -> None:
        while not stop.wait(seconds) and not self._health.failure:
            work()

    def _refresh_versions(self) -> None:
        self._versions.refresh()
        if self._versions.ready and not self._health.ready and not self._stop.is_set():
            self._health.ready = True
            log.info("ready")

    def _refresh_memory(self) -> None:
        try:
            self._index.refresh()
            self._memory_trouble = None
        except LifelongError as error:
            if self._memory_trouble is None:
                log.warning("memory is not refreshed: %s", error)
            self._memory_trouble = str(error)
        self._metrics.set(names.MEMORY_ENTRIES, len(self._index))

    def _details(self) -> dict[str, object]:
        version, manifest, pointer = self._versions.live(self._settings.line.name)
        student, _, _ = self._versions.live(self._settings.line.student)
        troubles = {
            **self._versions.trouble,
            "memory": self._memory_trouble,
            "outputs": self._outputs.trouble,
            "requests": self._requests.trouble,
        }
        return {
            "version": version,
            "pointer": pointer,
            "weights_sha256": manifest.weights_sha256 if manifest else None,
            "newest_event_time": manifest.newest_event_time if manifest else None,
            "student": student,
            "memory_entries": len(self._index),
            "trouble": {what: why for what, why in troubles.items() if why},
        }


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ConfigError("inference.port", f"cannot listen on {host}:{port}: {error}") from error
    return listening


def build(settings: Settings) -> InferenceApp:
    return InferenceApp(settings)
