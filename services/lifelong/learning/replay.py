"""Old samples, kept to be learnt again: experience replay (https://arxiv.org/abs/1902.10486).

``Reservoir``: every sample ever seen is in the buffer with the same probability (Vitter's Algorithm R, 1985).
``BalancedReservoir``: every task has the same share while it can fill it, and within a task Algorithm R
(class-balancing reservoir sampling, https://proceedings.mlr.press/v119/chrysakis20a.html). Half of what it draws are
samples that should be known and were not when they were last seen: a fact that was pushed out by later ones is repeated
until it is back, one that is known need not be, as in spaced repetition. (Among all samples that would be prioritised
replay, https://arxiv.org/abs/1511.05952, and favour what is mislabelled.)

There is no random state to save: each draw is a function of (seed, version, step), so that a trainer that was killed
draws the same again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from lifelong.contracts.samples import Sample


def randbelow(bound: int, *key: int | str) -> int:
    """Uniform in [0, bound), a function of ``key``; the bias of the modulo is below bound / 2⁶⁴."""
    assert bound > 0
    digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % bound


class ReplayState(msgspec.Struct, frozen=True):
    """Beside the samples themselves: how many were ever offered, by task."""

    seen: dict[str, int] = {}
    lapsed: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Ids of the samples that should be known and are not; unset: none."""


class Reservoir:
    def __init__(self, capacity: int, seed: int) -> None:
        self.capacity = capacity
        self.seed = seed
        self.samples: list[Sample] = []
        self._seen: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.samples)

    def add(self, sample: Sample) -> None:
        self._seen[sample.task] += 1
        if len(self.samples) < self.capacity:
            self.samples.append(sample)
        elif self.capacity:
            place = self._place(sample)
            if place is not None:
                self.samples[place] = sample

    def _place(self, sample: Sample) -> int | None:
        """Of the sample that has to go for this one; ``None``: this one is not kept."""
        place = randbelow(self._seen.total(), self.seed, "keep", self._seen.total())
        return place if place < self.capacity else None

    def draw(self, num_samples: int, *, version: int, step: int = 0, known: Collection[str] = ()) -> list[Sample]:
        """Without replacement, fewer if there are not so many.

        Args:
            known: ids of those that have been seen to be, since ``note_known``.
        """
        return self._drawn(self.samples, num_samples, version, step)

    def _drawn(self, samples: Sequence[Sample], num_samples: int, *key: int | str) -> list[Sample]:
        left = list(samples)
        return [left.pop(randbelow(len(left), self.seed, *key, turn)) for turn in range(min(num_samples, len(left)))]

    def saw(self, losses: Mapping[str, float]) -> None:
        """Losses of old samples that were replayed, and of new ones before they are added; in nats per token."""

    def note_known(self, losses: Mapping[str, float], known_nats: float) -> None:
        """Losses of samples when they were last seen, in nats per token; below ``known_nats`` one is known."""

    def remove(self, is_unwanted: Callable[[Sample], bool]) -> list[str]:
        """Ids of what was taken out."""
        removed = [sample.id for sample in self.samples if is_unwanted(sample)]
        self.samples = [sample for sample in self.samples if not is_unwanted(sample)]
        return removed

    def state(self) -> ReplayState:
        return ReplayState(dict(sorted(self._seen.items())))

    def load(self, state: ReplayState, samples: Sequence[Sample]) -> None:
        self._seen = Counter(state.seen)
        kept = self._shrunk(samples)
        self.samples = [sample for sample in samples if sample.id in kept]

    def _shrunk(self, samples: Sequence[Sample]) -> set[str]:
        """Ids of those that stay where the capacity is smaller than it was: which ones is left to chance, for the first
        ones of a buffer that was not full are the oldest."""
        return set(sorted((sample.id for sample in samples), key=self._lot)[: self.capacity])

    def _lot(self, sample_id: str) -> int:
        return randbelow(1 << 62, self.seed, "shrink", sample_id)


class BalancedReservoir(Reservoir):
    def __init__(self, capacity: int, seed: int) -> None:
        super().__init__(capacity, seed)
        self._lapsed: set[str] = set()

    def note_known(self, losses: Mapping[str, float], known_nats: float) -> None:
        # Written so that NaN is not known.
        self._lapsed |= {name for name, loss in losses.items() if not loss < known_nats}
        self._lapsed -= {name for name, loss in losses.items() if loss < known_nats}
        self._lapsed &= {sample.id for sample in self.samples if sample.until_known}

    def draw(self, num_samples: int, *, version: int, step: int = 0, known: Collection[str] = ()) -> list[Sample]:
        """Up to half of them of what should be known and is not."""
        lapsed = [sample for sample in self.samples if sample.id in self._lapsed and sample.id not in known]
        first = self._drawn(lapsed, num_samples // 2, "lapsed", version, step)
        drawn = {sample.id for sample in first}
        others = [sample for sample in self.samples if sample.id not in drawn]
        return [*first, *self._drawn(others, num_samples - len(first), version, step)]

    def remove(self, is_unwanted: Callable[[Sample], bool]) -> list[str]:
        removed = super().remove(is_unwanted)
        self._lapsed.difference_update(removed)
        return removed

    def state(self) -> ReplayState:
        return msgspec.structs.replace(super().state(), lapsed=tuple(sorted(self._lapsed)) or msgspec.UNSET)

    def load(self, state: ReplayState, samples: Sequence[Sample]) -> None:
        super().load(state, samples)
        self._lapsed = {sample.id for sample in self.samples} & set(state.lapsed or ())

    def _shrunk(self, samples: Sequence[Sample]) -> set[str]:
        of_task: dict[str, list[str]] = {}
        for sample in samples:
            of_task.setdefault(sample.task, []).append(sample.id)
        left = {task: sorted(ids, key=self._lot) for task, ids in sorted(of_task.items())}
        for _ in range(len(samples) - self.capacity):
            max(left.values(), key=len).pop()
        return {sample_id for ids in left.values() for sample_id in ids}

    def _place(self, sample: Sample) -> int | None:
        num_kept = Counter(kept.task for kept in self.samples)
        largest = max(num_kept.values())
        total = self._seen.total()
        if num_kept[sample.task] < largest:
            # A task that is behind takes a place from one of those that are ahead.
            of_largest = [i for i, kept in enumerate(self.samples) if num_kept[kept.task] == largest]
            return of_largest[randbelow(len(of_largest), self.seed, "keep", total)]
        of_task = [i for i, kept in enumerate(self.samples) if kept.task == sample.task]
        place = randbelow(self._seen[sample.task], self.seed, "keep", total)
        return of_task[place] if place < len(of_task) else None
