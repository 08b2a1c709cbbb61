"""Episodic memory within one process, for tests and simulations. The same rules as :mod:`lifelong.memory.redis`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from lifelong.memory.base import Changes, MemoryChange, MemoryEntry


class LocalMemory:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, MemoryEntry] = {}
        self._vectors: dict[str, tuple[str, bytes]] = {}
        self._forgotten: set[str] = set()
        self._log: list[str] = []

    def put(self, entries: Sequence[MemoryEntry]) -> None:
        with self._lock:
            for entry in entries:
                if entry.id not in self._entries and entry.event_id not in self._forgotten:
                    self._entries[entry.id] = entry
                    self._log.append(entry.id)

    def forget(self, *, event_ids: Sequence[str] = (), user: str | None = None) -> int:
        with self._lock:
            of_user = {e.event_id for e in self._entries.values() if user is not None and e.user == user}
            self._forgotten.update(event_ids, of_user)
            wanted = frozenset(event_ids)
            return self._remove(lambda e: e.event_id in wanted or (user is not None and e.user == user))

    def changes(self, cursor: str | None, limit: int = 1000) -> Changes:
        with self._lock:
            if cursor is None:
                return Changes(str(len(self._log)), True, [self._change(entry_id) for entry_id in self._entries])
            logged = self._log[int(cursor) : int(cursor) + limit]
            changes = [self._change(entry_id) for entry_id in dict.fromkeys(logged)]
            return Changes(str(int(cursor) + len(logged)), False, changes)

    def put_vectors(self, embedder: str, vectors: dict[str, bytes]) -> None:
        with self._lock:
            for entry_id, vector in vectors.items():
                if entry_id in self._entries:
                    self._vectors[entry_id] = (embedder, vector)

    def get(self, entry_id: str) -> MemoryEntry | None:
        return self._entries.get(entry_id)

    def sweep(self, now: float) -> int:
        with self._lock:
            return self._remove(lambda entry: entry.expires is not None and entry.expires < now)

    def __len__(self) -> int:
        return len(self._entries)

    def _remove(self, is_unwanted: Callable[[MemoryEntry], bool]) -> int:
        gone = [entry.id for entry in self._entries.values() if is_unwanted(entry)]
        for entry_id in gone:
            del self._entries[entry_id]
            self._vectors.pop(entry_id, None)
            self._log.append(entry_id)
        return len(gone)

    def _change(self, entry_id: str) -> MemoryChange:
        embedder, vector = self._vectors.get(entry_id, (None, None))
        return MemoryChange(entry_id, self._entries.get(entry_id), embedder, vector)
