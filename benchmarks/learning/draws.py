"""Drawing so that every kind is as frequent as the next."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


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
