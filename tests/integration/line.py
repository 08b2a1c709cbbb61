"""One line with the tiny model on real servers, and the processes that work on it, as tests start and kill them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from lifelong.config.shared import KafkaSettings
from lifelong.contracts import topics
from lifelong.contracts.codec import decode, encode_event, type_name
from lifelong.contracts.events import Event, EventData
from lifelong.contracts.samples import SampleRecord, coverage
from lifelong.contracts.versions import Manifest
from lifelong.local.ports import free_port
from lifelong.memory.redis import RedisMemory
from lifelong.model.tiny import tiny_random_model
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry
from lifelong.stream.base import Record
from lifelong.stream.kafka import KafkaSink, KafkaSource

_WAIT_SECONDS = 120.0


def wait_until(condition: Callable[[], Any], what: str, alive: Callable[[], bool] = lambda: True) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert alive(), f"ended before: {what}"
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)


class Process:
    def __init__(self, popen: subprocess.Popen[bytes], log: Path, url: str) -> None:
        self.popen = popen
        self.log = log
        self.url = url

    def is_running(self) -> bool:
        return self.popen.poll() is None

    def says(self) -> str:
        return self.log.read_text()

    def health(self, path: str = "/health") -> tuple[int, dict[str, Any]]:
        """Status and report; 0 where nothing answers yet."""
        try:
            answer = httpx.get(self.url + path, timeout=30)
        except httpx.TransportError:
            return 0, {}
        return answer.status_code, answer.json()

    def is_ready(self) -> bool:
        return self.health("/ready")[0] == 200

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all that have these labels."""
        found = 0.0
        for family in text_string_to_metric_families(httpx.get(self.url + "/metrics", timeout=30).text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    found += sample.value
        return found

    def rss(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.popen.pid).memory_info().rss)

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def exit_code(self) -> int:
        return self.popen.wait(_WAIT_SECONDS)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.exit_code()


class Line:
    def __init__(self, folder: Path, kafka: KafkaSettings, redis_url: str, name: str) -> None:
        self.folder = folder
        self.kafka = kafka
        self.name = name
        self.redis_url = redis_url
        self.registry = Registry(DirectoryStore(folder / "artifacts"), RedisPointers(redis_url))
        self.memory = RedisMemory(redis_url, name)
        self.base = tiny_random_model(0, folder / "model")
        self._num_started = 0
        self.environment = {key: text for key, text in os.environ.items() if not key.startswith("LIFELONG_")} | {
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "LIFELONG_CACHE": str(folder / "cache"),
            "LIFELONG_LINE__NAME": name,
            "LIFELONG_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "LIFELONG_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
            "LIFELONG_REDIS__URL": redis_url,
            "LIFELONG_ARTIFACTS__URL": str(folder / "artifacts"),
            "LIFELONG_MODEL__NAME": str(folder / "model"),
            "LIFELONG_MODEL__DTYPE": "float32",
            "LIFELONG_MODEL__DEVICE": "cpu",
            "LIFELONG_MODEL__THREADS": "1",
            "LIFELONG_MEMORY__EMBEDDER": "hash",
            "LIFELONG_INFERENCE__DEFAULT_MAX_TOKENS": "8",
            "LIFELONG_LEARNING__LEARNING_RATE": "0.01",
            "LIFELONG_LEARNING__MAX_STEPS": "4",
            # A random model has no general text to lose.
            "LIFELONG_GATE__GENERAL_TOLERANCE_NATS": "100",
            "LIFELONG_GATE__GENERAL_DRIFT_NATS": "100",
        }

    @contextlib.contextmanager
    def process(self, name: str, *, code: str | None = None, **settings: str) -> Iterator[Process]:
        """
        Args:
            code: run instead of ``-m lifelong.<name>``.
            settings: ``SECTION__FIELD``.
        """
        self._num_started += 1
        log, port = self.folder / f"{name}-{self._num_started}.log", free_port()
        section = "INFERENCE" if name == "inference" else "METRICS"
        environment = self.environment | {f"LIFELONG_{section}__PORT": str(port)}
        environment |= {f"LIFELONG_{field}": text for field, text in settings.items()}
        command = [sys.executable, *(["-c", code] if code else ["-m", f"lifelong.{name}"])]
        with log.open("ab") as file:
            popen = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
            try:
                yield Process(popen, log, f"http://127.0.0.1:{port}")
            finally:
                if popen.poll() is None:
                    popen.kill()
                popen.wait()

    def publish(self, events: Sequence[tuple[str, EventData]], partition: int | None = None) -> None:
        """Events with these ids, in turns on all partitions, or on one."""
        sink = KafkaSink(self.kafka)
        for number, (event_id, data) in enumerate(events):
            value, headers = encode_event(
                Event(id=event_id, source="/test", type=type_name(data), data=data, time=time.time())
            )
            at = number % self.kafka.partitions if partition is None else partition
            sink.send(topics.EVENTS.name, value, headers=headers, partition=at)
        sink.flush()
        sink.close()

    def read(self, topic: str) -> list[Record]:
        """All that is there."""
        source = KafkaSource(self.kafka, [topic])
        source.seek({})
        ends, firsts = source.end_positions(), source.first_positions()
        records: list[Record] = []
        while len(records) < sum(ends[p] - firsts[p] for p in ends):
            records += source.poll(1.0)
        source.close()
        return records

    def accounts(self) -> list[SampleRecord]:
        """As whoever reads them takes them: what was written twice counts once."""
        found: list[SampleRecord] = []
        watermarks: Counter[int] = Counter()
        for record in self.read(topics.SAMPLES.name):
            account = decode(record.value, SampleRecord)
            if coverage(account, watermarks[account.source_partition]) == "new":
                watermarks[account.source_partition] = account.to_offset
                found.append(account)
        return found

    def versions(self) -> list[Manifest]:
        return self.registry.versions(self.name)

    def counts(self) -> Counter[str]:
        """As the newest manifest has them."""
        newest = self.registry.newest(self.name)
        return Counter(newest.counts if newest else {})

    def learnt(self) -> Counter[str]:
        """How often each sample was learnt or held out, by its id."""
        batches = [batch for manifest in self.versions() for batch in manifest.batches]
        return Counter(name for batch in batches for name in (*batch.samples, *batch.held_out))
