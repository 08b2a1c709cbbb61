"""The real thing on one machine: Kafka, Valkey and the four processes on a tiny model, each of which may fail.

Whoever is down is started again at once, as a supervisor would do.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import msgspec
from tests.schedules.disk import SmallDisk

from lifelong.config.shared import KafkaSettings
from lifelong.local.child import Child, exit_code, is_running, last_lines, spawn, stop_all
from lifelong.local.kafka import KafkaBroker
from lifelong.local.ports import HOST, is_free
from lifelong.local.valkey import ValkeyServer
from lifelong.model.tiny import tiny_random_model
from lifelong.stream.admin import apply_topics

STANDBY = "second-trainer"
"""Waits for the lease, in some schedules."""
SECOND_COLLECTOR = "second-collector"
"""Shares the partitions, in some schedules."""
SECONDS = (STANDBY, SECOND_COLLECTOR)

_SHIFTED = Path(__file__).with_name("shifted.py")
_MIN_LIFE_SECONDS = 1.0
"""So long at least between two starts of a process, as a supervisor that backs off."""
_DISK_MEGABYTES = 512

SETTINGS = {
    "LIFELONG_MEMORY__EMBEDDER": "hash",
    "LIFELONG_MODEL__THREADS": "1",
    "LIFELONG_MODEL__DEVICE": "cpu",
    "LIFELONG_MODEL__DTYPE": "float32",
    "LIFELONG_KAFKA__PARTITIONS": "3",
    # More versions out of fewer events.
    "LIFELONG_TRAINER__BATCH_SIZE": "4",
    "LIFELONG_LEARNING__MAX_STEPS": "6",
    # A random model drifts far; if everything were rejected in the end, nothing would be tested.
    "LIFELONG_GATE__GENERAL_DRIFT_NATS": "1000",
    "LIFELONG_DISTILLER__IDLE_SECONDS": "1",
    "LIFELONG_DISTILLER__STEPS_PER_ROUND": "4",
}


class Exit(msgspec.Struct, frozen=True):
    """A process that ended without being killed by us."""

    name: str
    code: int | None
    last_words: str


class World:
    """``start`` blocks until all are ready. All methods but ``wipe`` and those of servers return at once."""

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.kafka = KafkaBroker(self.home / "kafka", self.log("kafka"), *_ports(2))
        self.valkey = ValkeyServer(self.home / "valkey", self.log("valkey"), *_ports(1))
        self.kafka_settings = KafkaSettings(bootstrap_servers=self.kafka.address, partitions=3)
        self.exits: list[Exit] = []
        self.disk = SmallDisk(self.artifacts, _DISK_MEGABYTES)
        self._ports = dict(zip(("collector", "trainer", "inference", "distiller", *SECONDS), _ports(6), strict=True))
        self._children: dict[str, Child] = {}
        self._born: dict[str, float] = {}
        self._killed: set[int] = set()
        self._wanted: dict[str, int] = {}
        """Process → by how much its clock is ahead."""
        self._starting: dict[str, threading.Thread] = {}
        self._failures: list[str] = []
        # One for all: to make one takes longer than to ask.
        self._client = httpx.Client(trust_env=False, timeout=2.0)

    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts"

    def log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def start(self) -> None:
        tiny_random_model(0, self.home / "model")
        self._children["valkey"] = self.valkey.start()
        self._children["kafka"] = self.kafka.start()
        apply_topics(self.kafka_settings)
        for name in ("collector", "trainer", "inference", "distiller"):
            self.want(name)
        deadline = time.monotonic() + 180
        while not self.is_well():
            self.supervise()
            assert time.monotonic() < deadline, f"not ready: {self.state()}"
            time.sleep(0.1)

    def close(self) -> None:
        self._wanted.clear()
        for thread in self._starting.values():
            thread.join()
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGCONT)
        servers = [self._children.pop(name) for name in ("kafka", "valkey") if name in self._children]
        stop_all(list(self._children.values()))
        stop_all(servers)
        self._client.close()
        self.disk.close()

    def __enter__(self) -> World:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # How things are.

    def is_well(self) -> bool:
        """All run and say that they work; of two trainers exactly one does, and the other waits for its lease."""
        if not self.servers_run():
            return False
        status = {name: self.health(name).get("status") for name in self._wanted if name != SECOND_COLLECTOR}
        trainers = sorted(str(status.pop(name)) for name in ("trainer", STANDBY) if name in status)
        return trainers in (["ready"], ["ready", "starting"]) and set(status.values()) <= {"ready"}

    def servers_run(self) -> bool:
        return not self._starting and all(is_running(self._children[name]) for name in ("kafka", "valkey"))

    def health(self, name: str) -> dict[str, Any]:
        """What a process says of itself; empty while it does not answer."""
        if self.pid(name) is None:
            return {}
        try:
            report = self._client.get(f"http://{HOST}:{self._ports[name]}/health").json()
        except (httpx.TransportError, ValueError):
            return {}
        return report if isinstance(report, dict) else {}

    def state(self) -> dict[str, object]:
        return {name: self.health(name) for name in self._wanted}

    def pid(self, name: str) -> int | None:
        child = self._children.get(name)
        return child.pid if child is not None and is_running(child) else None

    def failures(self) -> list[str]:
        """Of servers that could not be started again."""
        return list(self._failures)

    # Processes.

    def want(self, name: str, shift_seconds: int = 0) -> None:
        """From now on it is to run, with its clock so much ahead."""
        self._wanted[name] = shift_seconds
        self.supervise()

    def dismiss(self, name: str) -> None:
        """It is told to end, and is not started again."""
        self._wanted.pop(name, None)
        pid = self.pid(name)
        if pid is not None:
            self._killed.add(pid)
            os.kill(pid, signal.SIGTERM)

    def supervise(self) -> None:
        """Starts what is down; to be called often."""
        for name, shift in self._wanted.items():
            child = self._children.get(name)
            if child is not None and is_running(child):
                continue
            if child is not None and child.pid not in self._killed:
                self._killed.add(child.pid)
                self.exits.append(Exit(name, exit_code(child), _last_words(self.log(name))))
            if time.monotonic() - self._born.get(name, 0.0) < _MIN_LIFE_SECONDS:
                continue
            self._born[name] = time.monotonic()
            self._children[name] = self._spawn(name, shift)

    def kill(self, *names: str) -> None:
        """-9, all of them as nearly at once as can be."""
        pids = [pid for name in names if (pid := self.pid(name)) is not None]
        self._killed.update(pids)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def freeze(self, name: str) -> int | None:
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
        return pid

    def thaw(self, pid: int | None) -> None:
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _spawn(self, name: str, shift: int) -> Child:
        module = f"lifelong.{name.removeprefix('second-')}"
        command = [sys.executable, "-m", module]
        if shift:
            command = [sys.executable, str(_SHIFTED), str(shift), module]
        port = "LIFELONG_INFERENCE__PORT" if name == "inference" else "LIFELONG_METRICS__PORT"
        environment = {
            **os.environ,
            **SETTINGS,
            **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")},
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            "LIFELONG_MODEL__NAME": str(self.home / "model"),
            "LIFELONG_KAFKA__BOOTSTRAP_SERVERS": self.kafka.address,
            "LIFELONG_REDIS__URL": self.valkey.url,
            "LIFELONG_ARTIFACTS__URL": str(self.artifacts),
            port: str(self._ports[name]),
        }
        return spawn(
            name,
            command,
            log=self.log(name),
            lock=self.home / "run" / f"{name}.lock",
            env=environment,
            nice=10 if name == "distiller" else 0,
        )

    # Servers.

    def kill_server(self, name: str) -> None:
        """-9, and it is gone when this returns."""
        child = self._children[name]
        os.kill(child.pid, signal.SIGKILL)
        while is_running(child):
            time.sleep(0.002)

    def start_server(self, name: str) -> None:
        """On the same port, with what it has on its disk; meanwhile this returns."""

        def start() -> None:
            try:
                self._children[name] = (self.kafka if name == "kafka" else self.valkey).start()
            except Exception as error:
                self._failures.append(f"{name}: {error}")
            finally:
                self._starting.pop(name, None)

        thread = self._starting[name] = threading.Thread(target=start, name=f"start-{name}")
        thread.start()

    def wipe_valkey(self) -> None:
        """While it is down."""
        shutil.rmtree(self.home / "valkey")


def _ports(count: int) -> list[int]:
    """Outside the range from which connections are given theirs: whoever knocks at the port of a server that is down
    could otherwise get that very port for its own."""
    draw, found = random.SystemRandom(), list[int]()
    while len(found) < count:
        port = draw.randrange(20_000, 30_000)
        if port not in found and is_free(port):
            found.append(port)
    return found


def _last_words(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        text = file.read().decode(errors="replace")
    lines = [line for line in last_lines(text).splitlines() if line.strip()]
    return lines[-1] if lines else ""
