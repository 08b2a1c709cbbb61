"""What is seen of a world while it runs: the topics, the pointers, the store. A thread each."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec
from tests.schedules.world import World
from tests.simulation.invariants import Move

from lifelong.contracts import topics
from lifelong.contracts.codec import decode
from lifelong.contracts.requests import Output
from lifelong.contracts.samples import SampleRecord, coverage
from lifelong.contracts.versions import Manifest
from lifelong.errors import LifelongError
from lifelong.registry import layout
from lifelong.registry.base import PointerState
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.pointers import RedisPointers
from lifelong.stream.base import Partition, Record
from lifelong.stream.kafka import KafkaSource

LINE, STUDENT = "lifelong", "lifelong-student"

_POINTER_SECONDS = 0.03
_IN_CREATE, _IN_MOVED_TO = 0x100, 0x80
_EVENT = struct.Struct("iIII")

Step = Literal["folder", "scratch", "manifest"]


class Topics:
    """All records of all topics, in the order of each partition."""

    def __init__(self, world: World) -> None:
        self._names = [topic.name for topic in topics.TOPICS]
        self._source = KafkaSource(world.kafka_settings, self._names, patience_seconds=5)
        self._source.seek({})
        self._lock = threading.Lock()
        self._records: dict[str, list[Record]] = {name: [] for name in self._names}
        self.read_up_to: dict[Partition, int] = defaultdict(int)
        self.accounted: dict[int, int] = {}
        """Events partition → the first offset without an account."""
        self.accounts: list[SampleRecord] = []
        """Those that count, in the order of each partition."""
        self.answered: set[str] = set()
        """Ids of requests."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="topics", daemon=True)
        self._thread.start()

    def records(self, name: str) -> list[Record]:
        with self._lock:
            return list(self._records[name])

    def count(self, name: str) -> int:
        return len(self._records[name])

    def num_accounted(self) -> int:
        return sum(self.accounted.values())

    def ends(self) -> dict[Partition, int]:
        """As they are now, asked of the broker. Raises UnreachableError."""
        with self._lock:
            return dict(self._source.end_positions())

    def has_read(self, ends: dict[Partition, int]) -> bool:
        return all(self.read_up_to[partition] >= end for partition, end in ends.items())

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._source.close()

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                with self._lock:
                    for record in self._source.poll(0.05, 2000):
                        self._keep(record)
            except LifelongError:
                self._stop.wait(0.05)
            # The lock is for others too.
            time.sleep(0.001)

    def _keep(self, record: Record) -> None:
        self._records[record.topic].append(record)
        self.read_up_to[Partition(record.topic, record.partition)] = record.offset + 1
        if record.topic == topics.SAMPLES.name:
            account = msgspec.json.decode(record.value or b"", type=SampleRecord)
            source = account.source_partition
            if coverage(account, self.accounted.get(source, 0)) == "new":
                self.accounted[source] = account.to_offset
                self.accounts.append(account)
        elif record.topic == topics.OUTPUTS.name:
            self.answered.add(decode(record.value, Output).request_id)


class Store:
    """Versions as they come about."""

    def __init__(self, world: World, on_step: Callable[[Step], None]) -> None:
        self.store = DirectoryStore(world.artifacts)
        self._on_step = on_step
        self._manifests: dict[tuple[str, int], Manifest] = {}
        folder = world.artifacts / LINE
        self._folders, self._places = folder / "folders", folder / "manifests"
        for path in (self._folders, self._places):
            path.mkdir(parents=True, exist_ok=True)
        self.num_versions = len(self.store.numbers(LINE))
        self._inotify = _Inotify([self._folders, self._places])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="store", daemon=True)
        self._thread.start()

    def manifest(self, line: str, number: int) -> Manifest:
        """As it was when it was first asked for, whatever became of it.

        Raises CorruptVersionError, UnknownVersionError.
        """
        key = line, number
        if key not in self._manifests:
            self._manifests[key] = self.store.manifest(line, number)
        return self._manifests[key]

    def manifests(self, line: str) -> dict[int, Manifest]:
        found = {}
        for number in self.store.numbers(line):
            found[number] = self.manifest(line, number)
        return found

    def newest(self) -> Manifest | None:
        numbers = self.store.numbers(LINE)
        return self.manifest(LINE, numbers[-1]) if numbers else None

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._inotify.close()

    def _follow(self) -> None:
        while not self._stop.is_set():
            for path, name in self._inotify.read(0.2):
                if path == self._folders:
                    self._on_step("folder")
                elif layout.manifest_number(name) is not None:
                    self.num_versions += 1
                    self._on_step("manifest")
                else:
                    self._on_step("scratch")


class Pointers:
    """How the pointers of both lines moved."""

    def __init__(self, world: World, store: DirectoryStore) -> None:
        self._pointers = RedisPointers(world.valkey.url)
        self._store = store
        self._lock = threading.Lock()
        self.moves: list[Move] = []
        self.damaged: set[tuple[str, int]] = set()
        """Versions that we have torn."""
        self._last: dict[str, PointerState | None] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="pointers", daemon=True)
        self._thread.start()

    def lose(self, destroy: Callable[[], None]) -> None:
        """``destroy`` makes an end of them; nobody looks meanwhile."""
        with self._lock:
            destroy()
            for line in (LINE, STUDENT):
                self._note(line, None)

    def now(self, line: str) -> PointerState | None:
        return self._last.get(line)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._pointers.close()

    def _follow(self) -> None:
        while not self._stop.wait(_POINTER_SECONDS):
            with self._lock:
                try:
                    for line in (LINE, STUDENT):
                        self._note(line, self._pointers.read(line))
                except LifelongError:
                    continue

    def _note(self, line: str, state: PointerState | None) -> None:
        if line in self._last and self._last[line] == state:
            return
        if line not in self._last and state is None:
            return
        self._last[line] = state
        is_complete = None
        if state is not None and state.live and (line, state.live) not in self.damaged:
            is_complete = self._is_complete(line, state.live)
        self.moves.append(Move(line, state, is_complete))

    def _is_complete(self, line: str, number: int) -> bool:
        try:
            manifest = self._store.manifest(line, number)
            for name, entry in manifest.files.items():
                self._store.get(manifest.folder, name, entry)
        except LifelongError:
            return False
        return True


class Watch:
    def __init__(self, world: World, on_step: Callable[[Step], None]) -> None:
        self.topics = Topics(world)
        self.store = Store(world, on_step)
        self.pointers = Pointers(world, self.store.store)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pointers.close()
        self.store.close()
        self.topics.close()


class _Inotify:
    """What is created in some folders, told at once by the kernel: a commit takes a millisecond."""

    def __init__(self, folders: list[Path]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init()
        assert self._descriptor >= 0, os.strerror(ctypes.get_errno())
        self._folders = {}
        for folder in folders:
            watch = libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _IN_CREATE | _IN_MOVED_TO)
            assert watch >= 0, os.strerror(ctypes.get_errno())
            self._folders[watch] = folder

    def read(self, timeout_seconds: float) -> list[tuple[Path, str]]:
        ready, _, _ = select.select([self._descriptor], [], [], timeout_seconds)
        found, data = [], os.read(self._descriptor, 65536) if ready else b""
        while data:
            watch, _, _, length = _EVENT.unpack_from(data)
            name = data[_EVENT.size : _EVENT.size + length].rstrip(b"\0").decode()
            found.append((self._folders[watch], name))
            data = data[_EVENT.size + length :]
        return found

    def close(self) -> None:
        os.close(self._descriptor)
