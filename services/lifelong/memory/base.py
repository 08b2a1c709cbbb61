"""Episodic memory: what happened, as it was said, found again by meaning and words.

The collector writes entries (text only, it knows no embeddings). A server follows the log of changes, embeds what is
new (writing the vector back so that the next server need not) and keeps an index in its own memory. The index is a
cache: losing it loses nothing. Entries say which event they came of, so that answers can name their source and so that
forgetting an event forgets all that came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec
import numpy as np


class MemoryEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    """``{partition}-{offset}-{index}`` of the event it came of: the same on every replay."""
    event_id: str
    text: str
    """What is looked up: for a correction the question and the right answer."""
    kind: Literal["document", "dialogue", "correction", "fact", "observation"]
    event_time: float
    """Seconds since 1970."""
    question: str | None = None
    answer: str | None = None
    user: str | None = None
    """Given only to requests of this user; ``None``: to everybody."""
    expires: float | None = None
    """Seconds since 1970."""


class MemoryChange(msgspec.Struct, frozen=True):
    """``entry`` is as it is now, ``None`` when it was forgotten meanwhile."""

    entry_id: str
    entry: MemoryEntry | None
    embedder: str | None = None
    vector: bytes | None = None
    """float16, L2-normalised, by the embedder named."""


class Changes(msgspec.Struct, frozen=True):
    cursor: str
    """Where to read on."""
    is_everything: bool
    """These are all entries that there are; what is not among them is gone."""
    changes: list[MemoryChange]


class MemoryStore(Protocol):
    def put(self, entries: Sequence[MemoryEntry]) -> None:
        """Idempotent: the same entry again changes nothing, and an entry of a forgotten event is not put."""
        ...

    def forget(self, *, event_ids: Sequence[str] = (), user: str | None = None) -> int:
        """Removes all entries of these events or this user, for good; the number removed.

        What is remembered of them is the ids of the events, so that a replay does not bring the entries back.
        """
        ...

    def changes(self, cursor: str | None, limit: int = 1000) -> Changes:
        """What changed after ``cursor``, at most ``limit`` of it; ``None``: everything there is.

        A reader so far behind that the capped log no longer reaches back to its cursor gets everything again.
        """
        ...

    def put_vectors(self, embedder: str, vectors: dict[str, bytes]) -> None:
        """By entry id. Ignored for entries that are gone."""
        ...

    def get(self, entry_id: str) -> MemoryEntry | None: ...

    def sweep(self, now: float) -> int:
        """Removes the entries that expired before ``now`` (seconds since 1970); how many there were."""
        ...

    def __len__(self) -> int: ...


class Embedder(Protocol):
    @property
    def id(self) -> str:
        """Vectors of embedders with different ids cannot be compared."""
        ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, D], each row of length 1."""
        ...


class Hit(msgspec.Struct, frozen=True):
    entry: MemoryEntry
    score: float
    """0 to 1; higher is better."""
