"""Observations whose label comes apart from the input: the two halves find each other by their id.

A label is joined to the newest input before it in the same partition, a second label to the same input again (the
first was wrong). An input that comes after its label is joined to the newest label before it, unless there was an
input before, to which that label belonged. Each half looks only at what stands before it in its own partition, which
is the same on every replay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from lifelong.collector.dedupe import digest
from lifelong.contracts import redis_keys
from lifelong.runtime.redis import connect_redis, redis_errors

Side = Literal["input", "label"]

MAX_HALVES = 64
"""Kept per id; the oldest go first. More than a few is a mistake of the sender."""


class Half(msgspec.Struct, frozen=True):
    task: str
    observation_id: str
    partition: int
    offset: int
    side: Side
    text: str
    event_id: str


class HalfStore(Protocol):
    def meet(self, halves: Sequence[Half]) -> list[Half | None]:
        """Keeps each half; for each, in their order, the other half that it completes, or ``None``: it waits."""
        ...


def partner(own: Half, others: Sequence[Half]) -> Half | None:
    """``others``: halves with the same id and partition, those after ``own`` included or not."""
    before = sorted((other for other in others if other.offset < own.offset), key=lambda other: other.offset)
    inputs = [other for other in before if other.side == "input"]
    if own.side == "label":
        return inputs[-1] if inputs else None
    labels = [other for other in before if other.side == "label"]
    return labels[-1] if labels and not inputs else None


class LocalHalves:
    """In memory, for tests and simulations."""

    def __init__(self) -> None:
        self._halves: dict[tuple[str, str, int], dict[int, Half]] = {}

    def meet(self, halves: Sequence[Half]) -> list[Half | None]:
        found = []
        for half in halves:
            kept = self._halves.setdefault((half.task, half.observation_id, half.partition), {})
            kept[half.offset] = half
            found.append(partner(half, list(kept.values())))
            for offset in sorted(kept)[:-MAX_HALVES]:
                del kept[offset]
        return found


class RedisHalves:
    """A hash per id, from offset to half, that lives as long as halves wait for each other."""

    def __init__(self, url: str, line: str, *, window_seconds: float) -> None:
        self._url = url
        self._client = connect_redis(url)
        self._line = line
        self._ttl = int(window_seconds) + 1

    def meet(self, halves: Sequence[Half]) -> list[Half | None]:
        if not halves:
            return []
        # Written and read in one go, in order. Nobody else writes here: the partition belongs to this collector.
        keys = [self._key(half) for half in halves]
        with redis_errors(self._url):
            pipeline = self._client.pipeline(transaction=False)
            for key, half in zip(keys, halves, strict=True):
                pipeline.hset(key, str(half.offset), msgspec.json.encode(half).decode())
                pipeline.expire(key, self._ttl)
                pipeline.hgetall(key)
            answers: list[Mapping[bytes, bytes]] = pipeline.execute()[2::3]
            for key, kept in zip(keys, answers, strict=True):
                for offset in sorted(kept, key=int)[:-MAX_HALVES]:
                    self._client.hdel(key, offset.decode())
        return [
            partner(half, [msgspec.json.decode(text, type=Half) for text in kept.values()])
            for half, kept in zip(halves, answers, strict=True)
        ]

    def _key(self, half: Half) -> str:
        # A digest, because ids of strangers may hold anything and be of any length.
        observation = digest(str(half.partition), half.observation_id)
        return redis_keys.open_observation(self._line, digest(half.task), observation)
