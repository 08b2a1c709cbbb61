"""Drawing samples: what is held out, and every kind as frequent as the next."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

HELD_OUT = 3
"""One name in so many is held out."""


def held_out(name: str) -> bool:
    """By its hash, so for every seed and for any number of samples."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % HELD_OUT == 0


def evenly(kinds: Iterable[Sequence[T]], num: int, rng: random.Random) -> list[T]:
    """``num`` of them, one of each kind in turn, then shuffled; a kind that has no more is passed over.

    Raises:
        ValueError: there are fewer.
    """
    waiting = [rng.sample(kind, len(kind)) for kind in kinds]
    have = sum(len(kind) for kind in waiting)
    if have < num:
        raise ValueError(f"{num} wanted, the source has {have}: ask for fewer")
    rng.shuffle(waiting)
    chosen: list[T] = []
    while len(chosen) < num:
        for kind in waiting:
            if kind and len(chosen) < num:
                chosen.append(kind.pop())
    rng.shuffle(chosen)
    return chosen
