"""The whole server without sockets: a tiny model, a registry and a stream in memory, HTTP over ASGI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fakeredis
import httpx
import pytest
import torch
from fastapi import FastAPI

from lifelong.config.shared import LineSettings
from lifelong.contracts.codec import decode
from lifelong.contracts.requests import Output
from lifelong.contracts.versions import Manifest, Verdict
from lifelong.inference.config import InferenceSettings, MemorySettings, Settings
from lifelong.inference.feedback import FeedbackDesk
from lifelong.inference.handler import Answerer
from lifelong.inference.http import make_http
from lifelong.inference.outputs import Outputs, OutputStore
from lifelong.inference.recall import Recall
from lifelong.inference.versions import Versions
from lifelong.memory.index import MemoryIndex
from lifelong.memory.local import LocalMemory
from lifelong.model.adapter import AdapterState, adapter_files, adapter_state, add_adapter, load_adapter_state
from lifelong.model.base import BaseModel, load_base, view_of
from lifelong.model.batching_engine import BatchingEngine
from lifelong.model.embedder import HashEmbedder
from lifelong.model.hashing import combined_sha256, tensor_hashes
from lifelong.model.settings import AdapterSettings, EngineSettings, ModelSettings
from lifelong.model.tiny import tiny_random_model
from lifelong.registry.artifacts import InMemoryStore
from lifelong.registry.pointers import LocalPointers
from lifelong.registry.registry import Registry
from lifelong.runtime.clock import SystemClock
from lifelong.runtime.health import Health
from lifelong.runtime.metrics import Metrics
from lifelong.stream.memory import MemoryBroker

LINE = "lifelong"
ADAPTER = AdapterSettings(rank=4, alpha=8)
ENGINE = EngineSettings(max_requests=64, max_batch_requests=8, max_batch_tokens=64, cache_tokens=512, page_tokens=16)


class FakeOutputStore(OutputStore):
    """On a Redis within the process."""

    def __init__(self) -> None:
        super().__init__("redis://127.0.0.1:1/0", LINE, 1.0)
        self._redis = fakeredis.FakeRedis()


@dataclass
class Server:
    settings: Settings
    base: BaseModel
    engine: BatchingEngine
    registry: Registry
    epoch: int
    versions: Versions
    memory: LocalMemory
    index: MemoryIndex
    broker: MemoryBroker
    outputs: Outputs
    store: FakeOutputStore
    answerer: Answerer
    metrics: Metrics
    health: Health
    http: FastAPI

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.http, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60)

    def adapter(self, seed: int) -> AdapterState:
        """Random weights, large enough to change answers."""
        model = add_adapter(view_of(self.base), ADAPTER, seed=0)
        generator = torch.Generator().manual_seed(seed)
        return {n: 0.3 * torch.randn(t.shape, generator=generator) for n, t in adapter_state(model).items()}

    def commit(self, number: int, *, live: bool = True, event_time: float | None = None) -> Manifest:
        """A version whose weights are ``adapter(number)``."""
        model = add_adapter(view_of(self.base), ADAPTER, seed=0)
        load_adapter_state(model, self.adapter(number))
        hashes = tensor_hashes(adapter_state(model))
        manifest = Manifest(
            line=LINE,
            number=number,
            parent=number - 1,
            kind="active",
            base=self.base.name,
            base_sha256=self.base.sha256,
            epoch=self.epoch,
            created=1.0,
            weights_sha256=combined_sha256(hashes),
            tensors=hashes,
            files={},
            folder="",
            watermarks={},
            positions={},
            verdict=Verdict(True, "made for a test"),
            newest_event_time=event_time,
        )
        manifest = self.registry.commit(manifest, adapter_files(model))
        if live:
            self.registry.promote(LINE, number, epoch=self.epoch)
        return manifest

    def published(self) -> list[Output]:
        self.outputs.flush()
        return [decode(record.value, Output) for record in self.broker.records("lifelong.outputs.v1")]

    def kept(self, output_id: str) -> Output | None:
        return self.store.get(output_id)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_random_model(0, folder)
    return folder


@pytest.fixture
def settings() -> Settings:
    return Settings(
        line=LineSettings(LINE),
        adapter=ADAPTER,
        engine=ENGINE,
        memory=MemorySettings(embedder="hash", min_score=0.4),
        inference=InferenceSettings(default_max_tokens=12, outputs_waiting=100),
    )


@pytest.fixture
def server(tiny_folder: Path, settings: Settings) -> Iterator[Server]:
    clock = SystemClock()
    base = load_base(ModelSettings(name=str(tiny_folder), dtype="float32", device="cpu"))
    engine = BatchingEngine(base, ADAPTER, settings.engine)
    registry = Registry(InMemoryStore(), LocalPointers(clock), clock)
    epoch = registry.pointers.acquire(LINE, "test", 1e9, 0)
    assert epoch is not None
    metrics, health = Metrics("inference"), Health("inference")
    versions = Versions(
        engine,
        base,
        registry,
        metrics,
        line=LINE,
        student_line=LINE + "-student",
        num_hot=2,
        num_pinned=2,
        retry_seconds=0,
    )
    memory = LocalMemory()
    index = MemoryIndex(memory, HashEmbedder())
    broker = MemoryBroker()
    store = FakeOutputStore()
    outputs = Outputs(
        broker.sink(), store, max_waiting=settings.inference.outputs_waiting, required=True, retry_seconds=0.01
    )
    answerer = Answerer(engine, base, versions, Recall(index, settings.memory, clock), metrics, clock, settings)
    desk = FeedbackDesk(outputs, broker.sink(), metrics, clock, "test")
    http = make_http(
        answerer,
        versions,
        outputs,
        desk,
        health,
        metrics,
        api_keys=settings.inference.api_keys,
        max_body_bytes=settings.inference.max_body_bytes,
    )
    versions.refresh()
    health.ready = True
    yield Server(
        settings, base, engine, registry, epoch, versions, memory, index, broker, outputs, store, answerer, metrics,
        health, http,
    )  # fmt: skip
    outputs.close(10)
    engine.close()
