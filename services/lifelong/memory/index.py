"""Finding memories again, by meaning and by words.

score = w · cosine + (1 - w) · lexical, both in [0, 1].

The lexical part is the share of the question's words that the memory has, each word weighted by its inverse document
frequency: names and numbers, which embeddings blur, are rare and weigh most. Exact search over all vectors: at 20,000
entries it takes milliseconds, and it never misses.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lifelong.memory.base import Embedder, Hit, MemoryEntry, MemoryStore

COSINE_WEIGHT = 0.6
_EMBED_BATCH = 32
_WORD = re.compile(r"\w+")


class MemoryIndex:
    """A cache of the store. One thread calls ``refresh``; any number call ``search`` meanwhile."""

    def __init__(self, store: MemoryStore, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder
        self._lock = threading.Lock()
        self._cursor: str | None = None
        self._entries: list[MemoryEntry] = []
        self._rows: dict[str, int] = {}
        self._vectors = np.zeros((0, 0), dtype=np.float32)
        self._words: list[frozenset[str]] = []
        self._documents: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def refresh(self) -> int:
        """Take in what changed in the store since the last call; the number of changes.

        Raises:
            UnreachableError: the store does not answer. What is in the index stays.
        """
        num_changes = 0
        while True:
            found = self._store.changes(self._cursor)
            added = [change for change in found.changes if change.entry is not None]
            vectors = {
                change.entry_id: np.frombuffer(change.vector, dtype=np.float16).astype(np.float32)
                for change in added
                if change.vector is not None and change.embedder == self._embedder.id
            }
            entries = [change.entry for change in added if change.entry is not None]
            # Outside of the lock: nobody waits for the embedder.
            vectors |= self._embed([entry for entry in entries if entry.id not in vectors])
            with self._lock:
                if found.is_everything:
                    self._clear()
                for change in found.changes:
                    if change.entry is None:
                        self._remove(change.entry_id)
                for entry in entries:
                    self._add(entry, vectors[entry.id])
                self._cursor = found.cursor
            num_changes += len(found.changes)
            if not found.changes or found.is_everything:
                return num_changes

    def search(self, query: str, *, user: str | None, k: int, min_score: float, now: float) -> list[Hit]:
        """The best ``k`` memories that this user may see, best first.

        Of several answers to one question only the newest counts: a later correction replaces an earlier one.
        """
        if not self._entries or k < 1:
            return []
        query_D = self._embedder.embed([query])[0]
        with self._lock:
            entries, vectors_ND, words = self._entries, self._vectors[: len(self._entries)], self._words
            cosine_N = np.clip(vectors_ND @ query_D, 0.0, 1.0)
            score_N = COSINE_WEIGHT * cosine_N + (1 - COSINE_WEIGHT) * self._lexical(query, words)
            hits: list[Hit] = []
            answered: dict[str, MemoryEntry] = {}
            for row in np.argsort(-score_N, kind="stable"):
                entry, score = entries[row], float(score_N[row])
                if score < min_score:
                    break
                if not _may_see(entry, user) or (entry.expires is not None and entry.expires < now):
                    continue
                hits.append(Hit(entry, score))
                if entry.question is not None:
                    question = _normalised(entry.question)
                    known = answered.get(question)
                    if known is None or _order(entry) > _order(known):
                        answered[question] = entry
        current = [hit for hit in hits if hit.entry.question is None or _is_newest(hit.entry, answered)]
        return current[:k]

    def _lexical(self, query: str, words: Sequence[frozenset[str]]) -> np.ndarray:
        asked = _words(query)
        total = len(words)
        weight = {w: math.log(1 + (total + 0.5) / (self._documents[w] + 0.5)) for w in asked}
        whole = sum(weight.values())
        if not whole:
            return np.zeros(total, dtype=np.float32)
        shares = [sum(weight[w] for w in asked & have) / whole for have in words]
        return np.array(shares, dtype=np.float32)

    def _embed(self, entries: Sequence[MemoryEntry]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for start in range(0, len(entries), _EMBED_BATCH):
            batch = entries[start : start + _EMBED_BATCH]
            # A question is found by questions like it; the answer would only blur it.
            vectors = self._embedder.embed([entry.question or entry.text for entry in batch])
            found |= {entry.id: vector for entry, vector in zip(batch, vectors, strict=True)}
        if found:
            packed = {entry_id: vector.astype(np.float16).tobytes() for entry_id, vector in found.items()}
            self._store.put_vectors(self._embedder.id, packed)
        return found

    def _clear(self) -> None:
        self._entries, self._rows, self._words = [], {}, []
        self._documents = Counter()
        self._vectors = np.zeros((0, 0), dtype=np.float32)

    def _add(self, entry: MemoryEntry, vector: np.ndarray) -> None:
        if entry.id in self._rows:
            return
        row = len(self._entries)
        if row >= len(self._vectors):
            grown = np.zeros((max(64, 2 * row), len(vector)), dtype=np.float32)
            if row:
                grown[:row] = self._vectors[:row]
            self._vectors = grown
        self._vectors[row] = vector
        self._entries.append(entry)
        self._rows[entry.id] = row
        self._words.append(_words(entry.text))
        self._documents.update(self._words[-1])

    def _remove(self, entry_id: str) -> None:
        """The last row takes its place."""
        row = self._rows.pop(entry_id, None)
        if row is None:
            return
        self._documents.subtract(self._words[row])
        last = len(self._entries) - 1
        if row != last:
            self._entries[row] = self._entries[last]
            self._words[row] = self._words[last]
            self._vectors[row] = self._vectors[last]
            self._rows[self._entries[row].id] = row
        del self._entries[last], self._words[last]


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def _normalised(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _may_see(entry: MemoryEntry, user: str | None) -> bool:
    return entry.user is None or entry.user == user


def _order(entry: MemoryEntry) -> tuple[float, str]:
    return entry.event_time, entry.id


def _is_newest(entry: MemoryEntry, answered: dict[str, MemoryEntry]) -> bool:
    assert entry.question is not None
    return answered[_normalised(entry.question)].id == entry.id
