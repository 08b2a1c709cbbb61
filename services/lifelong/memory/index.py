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
import unicodedata
from collections.abc import Sequence

import numpy as np

from lifelong.memory.base import Embedder, Hit, MemoryChange, MemoryEntry, MemoryStore

COSINE_WEIGHT = 0.6
_BATCH = 32
# Where words are not set apart by spaces, each character counts as one.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(f"[{_IDEOGRAPHS}]|[^\\W{_IDEOGRAPHS}]+")


class MemoryIndex:
    """A cache of the store. One thread calls ``refresh``; any number call ``search`` meanwhile."""

    def __init__(self, store: MemoryStore, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder
        self._cursor: str | None = None
        # Changed by the refreshing thread alone, under the lock; so that thread may read without it.
        self._lock = threading.Lock()
        self._entries: list[MemoryEntry] = []
        self._words: list[frozenset[str]] = []
        self._vectors = np.zeros((0, 0), dtype=np.float32)
        self._rows: dict[str, int] = {}
        self._rows_with: dict[str, set[int]] = {}
        self._answers: dict[str, dict[str, MemoryEntry]] = {}
        """By question as it is compared: the entries that answer it, by id."""

    def __len__(self) -> int:
        return len(self._entries)

    def refresh(self) -> int:
        """Take in what changed in the store since the last call; the number of changes.

        Entries can be found as soon as they are embedded, while later ones still are.

        Raises:
            UnreachableError: the store does not answer. What is in the index stays.
        """
        num_changes = 0
        while True:
            found = self._store.changes(self._cursor)
            if found.is_everything:
                there = {change.entry_id for change in found.changes}
                self._remove([entry_id for entry_id in self._rows if entry_id not in there])
            for start in range(0, len(found.changes), _BATCH):
                self._take(found.changes[start : start + _BATCH])
            self._cursor = found.cursor
            num_changes += len(found.changes)
            if not found.changes or found.is_everything:
                return num_changes

    def search(self, query: str, *, user: str | None, k: int, min_score: float, now: float) -> list[Hit]:
        """The best ``k`` memories that this user may see, best first.

        Of several answers to one question only the newest counts: a later correction replaces an earlier one.

        Args:
            user: who asks; ``None`` sees only what is for everybody.
            now: seconds since 1970; what has expired by then is not found.
        """
        if not self._entries or k < 1:
            return []
        query_D = self._embedder.embed([query])[0]
        hits: list[Hit] = []
        with self._lock:
            if not self._entries:
                return []
            cosine_N = np.clip(self._vectors[: len(self._entries)] @ query_D, 0.0, 1.0)
            score_N = COSINE_WEIGHT * cosine_N + (1 - COSINE_WEIGHT) * self._lexical(query)
            rows = np.flatnonzero(score_N >= min_score)
            for row in rows[np.argsort(-score_N[rows], kind="stable")]:
                entry = self._entries[row]
                if _is_for(entry, user, now) and self._is_newest(entry, user, now):
                    hits.append(Hit(entry, float(score_N[row])))
                    if len(hits) == k:
                        break
        return hits

    def _lexical(self, query: str) -> np.ndarray:
        """float32 [N], the share of the question's words that each entry has, by weight."""
        total = len(self._entries)
        shares_N = np.zeros(total, dtype=np.float32)
        rows = {word: self._rows_with.get(word, set()) for word in _words(query)}
        weights = {word: math.log(1 + (total + 0.5) / (len(have) + 0.5)) for word, have in rows.items()}
        whole = sum(weights.values())
        for word, have in rows.items():
            shares_N[np.fromiter(have, dtype=np.intp, count=len(have))] += weights[word] / whole
        return shares_N

    def _is_newest(self, entry: MemoryEntry, user: str | None, now: float) -> bool:
        if entry.question is None:
            return True
        answers = self._answers[_normalised(entry.question)].values()
        return not any(_order(other) > _order(entry) and _is_for(other, user, now) for other in answers)

    def _take(self, changes: Sequence[MemoryChange]) -> None:
        self._remove([change.entry_id for change in changes if change.entry is None])
        # An entry never changes: one that is here needs no second look.
        added = [c for c in changes if c.entry is not None and c.entry_id not in self._rows]
        vectors = {
            change.entry_id: np.frombuffer(change.vector, dtype=np.float16).astype(np.float32)
            for change in added
            if change.vector is not None and change.embedder == self._embedder.id
        }
        entries = [change.entry for change in added if change.entry is not None]
        # Outside of the lock: no search waits for it.
        vectors |= self._embed([entry for entry in entries if entry.id not in vectors])
        with self._lock:
            for entry in entries:
                self._add(entry, vectors[entry.id])

    def _embed(self, entries: Sequence[MemoryEntry]) -> dict[str, np.ndarray]:
        if not entries:
            return {}
        # A question is found by questions like it; the answer would only blur it.
        vectors_ND = self._embedder.embed([entry.question or entry.text for entry in entries])
        packed = {
            entry.id: vector_D.astype(np.float16).tobytes() for entry, vector_D in zip(entries, vectors_ND, strict=True)
        }
        self._store.put_vectors(self._embedder.id, packed)
        # As the next server will read them: the same entry scores the same everywhere.
        return {
            entry_id: np.frombuffer(vector, dtype=np.float16).astype(np.float32) for entry_id, vector in packed.items()
        }

    def _add(self, entry: MemoryEntry, vector_D: np.ndarray) -> None:
        row = len(self._entries)
        if row >= len(self._vectors):
            grown = np.zeros((max(64, 2 * row), len(vector_D)), dtype=np.float32)
            if row:
                grown[:row] = self._vectors[:row]
            self._vectors = grown
        self._vectors[row] = vector_D
        self._entries.append(entry)
        self._words.append(_words(entry.text))
        self._rows[entry.id] = row
        for word in self._words[row]:
            self._rows_with.setdefault(word, set()).add(row)
        if entry.question is not None:
            self._answers.setdefault(_normalised(entry.question), {})[entry.id] = entry

    def _remove(self, entry_ids: Sequence[str]) -> None:
        with self._lock:
            for entry_id in entry_ids:
                if entry_id in self._rows:
                    self._remove_one(entry_id)

    def _remove_one(self, entry_id: str) -> None:
        """The last row takes its place."""
        row, last = self._rows.pop(entry_id), len(self._entries) - 1
        entry = self._entries[row]
        for word in self._words[row]:
            self._rows_with[word].discard(row)
            if not self._rows_with[word]:
                del self._rows_with[word]
        if entry.question is not None:
            question = _normalised(entry.question)
            del self._answers[question][entry_id]
            if not self._answers[question]:
                del self._answers[question]
        if row != last:
            self._entries[row], self._words[row] = self._entries[last], self._words[last]
            self._vectors[row] = self._vectors[last]
            self._rows[self._entries[row].id] = row
            for word in self._words[row]:
                self._rows_with[word].remove(last)
                self._rows_with[word].add(row)
        del self._entries[last], self._words[last]


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(_folded(text)))


def _normalised(question: str) -> str:
    return " ".join(_WORD.findall(_folded(question)))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _is_for(entry: MemoryEntry, user: str | None, now: float) -> bool:
    return entry.user in (None, user) and (entry.expires is None or entry.expires >= now)


def _order(entry: MemoryEntry) -> tuple[float, tuple[tuple[int, str], ...]]:
    """By time; what happened at the same time by its place in the stream, whose numbers are not padded."""
    return entry.event_time, tuple((len(part), part) for part in entry.id.split("-"))
