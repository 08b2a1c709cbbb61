"""Which events and documents were there before.

Every answer is the same on every replay. So what is kept is not *that* something was seen but *where* it was seen
first: a record that finds its own position there is the first one, however often it is asked. "Before" means that the
earlier claim reached the store earlier and that the times of the two records are less than a window apart; the clock
on the wall has no part in it.

Three things make a duplicate: the same event (source and id), for documents and dialogues the same content, and for
documents nearly the same content. Corrections, facts and observations are never compared by content: a fact may
change back, and the same input seen ten times says that it is frequent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, Protocol

import datasketch
import msgspec
import numpy as np

from lifelong.collector.words import words

# Five-word shingles as FineWeb has them (https://arxiv.org/abs/2406.17557, appendix E.2). Seed, scheme and number of
# permutations are part of what is stored: changing one of them makes all documents new.
_SHINGLE_WORDS = 5
NUM_PERMUTATIONS = 128
_SEED = 1
_SCHEME = "affine32"

# Two documents are compared if they agree in any band of eight values, which those of similarity 0.8 do with a chance
# of 1-(1-0.8^8)^16 = 95 %; those below 0.5, of 6 %. The comparison of all 128 values decides.
_NUM_BANDS = 16
_ROWS = NUM_PERMUTATIONS // _NUM_BANDS

# Shingles in one matrix, so that a document of a megabyte does not need a hundred.
_BATCH_SHINGLES = 2000


class Signature(msgspec.Struct, frozen=True):
    values: bytes
    """128 little-endian 32-bit integers."""
    bands: tuple[str, ...]
    """16 digests; equal ones make two documents worth comparing."""


class Claim(msgspec.Struct, frozen=True):
    """What a record claims to be the first to bring."""

    position: str
    """``{partition}-{offset}``."""
    time: float
    """Of the record: seconds since 1970."""
    event: str
    content: str | None = None
    signature: Signature | None = None


class Duplicate(msgspec.Struct, frozen=True):
    kind: Literal["event", "content", "near"]
    of: str
    """Position of the first."""


class SeenStore(Protocol):
    def first_seen(self, claims: Sequence[Claim]) -> list[Duplicate | None]:
        """For each claim, in their order: ``None`` if it is the first, else what it repeats.

        One claim is decided in one step, also when several collectors share the store. What has been claimed stays
        claimed if the caller dies before it has used the answer; the same claim again gets the same answer.
        """
        ...


def digest(*parts: str) -> str:
    """128 bits of BLAKE2b; no two lists of parts are taken for each other."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode()
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.hexdigest()


class Signer:
    """MinHash signatures of texts (Broder 1997), by datasketch."""

    def __init__(self, min_words: int) -> None:
        self._min_words = max(min_words, _SHINGLE_WORDS)
        self._permutations = datasketch.MinHash(NUM_PERMUTATIONS, _SEED, scheme=_SCHEME).permutations

    def sign(self, text: str, scope: str) -> Signature | None:
        """``None`` for a text too short to be compared. Only texts of one scope are ever compared."""
        tokens = words(text.casefold())
        if len(tokens) < self._min_words:
            return None
        shingles = sorted({" ".join(gram) for gram in zip(*(tokens[i:] for i in range(_SHINGLE_WORDS)), strict=False)})
        sketch = datasketch.MinHash(NUM_PERMUTATIONS, _SEED, scheme=_SCHEME, permutations=self._permutations)
        for start in range(0, len(shingles), _BATCH_SHINGLES):
            sketch.update_batch([shingle.encode() for shingle in shingles[start : start + _BATCH_SHINGLES]])
        return signature(sketch.hashvalues.astype("<u4").tobytes(), scope)


def signature(values: bytes, scope: str) -> Signature:
    size = _ROWS * 4
    bands = (digest("band", scope, str(i), values[i * size : (i + 1) * size].hex()) for i in range(_NUM_BANDS))
    return Signature(values, tuple(bands))


def num_equal(a: bytes, b: bytes) -> int:
    """In how many of the 128 values two signatures agree; divided by 128, the estimated Jaccard similarity."""
    return int(np.count_nonzero(np.frombuffer(a, "<u4") == np.frombuffer(b, "<u4")))


class LocalSeen:
    """In memory, for tests and simulations. Decides exactly as :class:`~lifelong.collector.dedupe_redis.RedisSeen`."""

    def __init__(self, window_seconds: float, near_threshold: float) -> None:
        self._window = window_seconds
        self._num_needed = num_needed(near_threshold)
        self._firsts: dict[str, list[tuple[str, float]]] = {}
        self._verdicts: dict[str, str | None] = {}
        self._bands: dict[str, list[tuple[float, str, bytes]]] = {}

    def first_seen(self, claims: Sequence[Claim]) -> list[Duplicate | None]:
        return [self._decide(claim) for claim in claims]

    def _decide(self, claim: Claim) -> Duplicate | None:
        if (of := self._claim(claim.event, claim)) is not None:
            return Duplicate("event", of)
        if claim.content is not None and (of := self._claim(claim.content, claim)) is not None:
            return Duplicate("content", of)
        if claim.signature is not None and (of := self._near(claim, claim.signature)) is not None:
            return Duplicate("near", of)
        return None

    def _claim(self, key: str, claim: Claim) -> str | None:
        firsts = self._firsts.setdefault(key, [])
        if any(position == claim.position for position, _ in firsts):
            return None
        for position, time in firsts:
            if abs(time - claim.time) <= self._window:
                return position
        firsts.append((claim.position, claim.time))
        return None

    def _near(self, claim: Claim, signature: Signature) -> str | None:
        if claim.position in self._verdicts:
            return self._verdicts[claim.position]
        best = self._num_needed - 1
        nearest = None
        compared = set()
        for band in signature.bands:
            # In the order in which Redis has them, so that of two equally near the same one is named.
            for time, position, values in sorted(self._bands.get(band, ())):
                if position not in compared and abs(time - claim.time) <= self._window:
                    compared.add(position)
                    if (equal := num_equal(values, signature.values)) > best:
                        best, nearest = equal, position
        self._verdicts[claim.position] = nearest
        if nearest is None:
            for band in signature.bands:
                self._bands.setdefault(band, []).append((claim.time, claim.position, signature.values))
        return nearest


def num_needed(threshold: float) -> int:
    """How many equal values an estimated similarity of ``threshold`` takes."""
    return int(np.ceil(threshold * NUM_PERMUTATIONS))
