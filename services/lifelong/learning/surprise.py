"""Old samples, half of them chosen by chance and half by surprise.

Hazard et al., "SuRe: surprise-driven prioritised replay for continual LLM learning", https://arxiv.org/abs/2511.22367:
keep what has the highest negative log-likelihood, with a share of the buffer for each task. Label noise is the most
surprising of all, so that a buffer by surprise alone fills up with it; here the other half is a class-balanced
reservoir, in which everything has its chance whatever its loss. The halves know nothing of each other; a sample may be
in both, and is drawn once.

Surprise is the loss when a sample was last seen: before it was learnt, then whenever it was replayed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from lifelong.contracts.samples import Sample
from lifelong.learning.replay import BalancedReservoir, ReplayState, Reservoir, randbelow


class SurpriseState(ReplayState, frozen=True, omit_defaults=True):
    surprising: tuple[str, ...] = ()
    """Sample ids of the half by surprise, oldest first."""
    by_chance: tuple[str, ...] = ()
    """Of the other half, by their places."""
    losses: dict[str, float] = msgspec.field(default_factory=dict)
    """In nats per token, when last seen."""


class SurpriseReservoir(Reservoir):
    def __init__(self, capacity: int, seed: int) -> None:
        super().__init__(capacity, seed)
        self._num_surprising = capacity // 2
        self._by_chance = BalancedReservoir(capacity - self._num_surprising, seed)
        self._surprising: list[Sample] = []
        self._losses: dict[str, float] = {}

    def saw(self, losses: Mapping[str, float]) -> None:
        """Losses of old samples that were replayed, and of new ones before they are added; in nats per token.

        A sample that is added without is not surprising at all; nor is a loss that is not a number a surprise.
        """
        # Those of samples that are gone are of no use.
        self._losses = self._kept_losses() | {k: loss if math.isfinite(loss) else 0.0 for k, loss in losses.items()}

    def _kept_losses(self) -> dict[str, float]:
        return {kept.id: self._losses.get(kept.id, 0.0) for kept in self.samples}

    def add(self, sample: Sample) -> None:
        self._by_chance.add(sample)
        self._surprising.append(sample)
        if len(self._surprising) > self._num_surprising:
            self._surprising.pop(self._least_surprising())
        self._settle()

    def _least_surprising(self) -> int:
        """Its place, of a task that has the most; of equals the newest goes."""
        num_of = Counter(kept.task for kept in self._surprising)
        largest = max(num_of.values())
        candidates = [i for i, kept in enumerate(self._surprising) if num_of[kept.task] == largest]
        return min(candidates, key=lambda i: (self._losses.get(self._surprising[i].id, 0.0), -i))

    def draw(self, num_samples: int, *, version: int, step: int = 0, known: Collection[str] = ()) -> list[Sample]:
        """Half of them from each half, the odd one by chance; fewer if there are not so many."""
        drawn: dict[str, Sample] = {}

        def take(pool: Sequence[Sample], number: int, which: str) -> None:
            left = [sample for sample in pool if sample.id not in drawn]
            for turn in range(min(number, len(left))):
                sample = left.pop(randbelow(len(left), self.seed, which, version, step, turn))
                drawn[sample.id] = sample

        take(self._surprising, num_samples // 2, "surprising")
        take(self._by_chance.samples, num_samples - len(drawn), "by chance")
        take(self._surprising, num_samples - len(drawn), "the rest")
        return list(drawn.values())

    def remove(self, is_unwanted: Callable[[Sample], bool]) -> list[str]:
        removed = [sample.id for sample in self.samples if is_unwanted(sample)]
        self._by_chance.remove(is_unwanted)
        self._surprising = [sample for sample in self._surprising if not is_unwanted(sample)]
        self._settle()
        return removed

    def _settle(self) -> None:
        """``samples`` are those of both halves, each once."""
        self.samples = list({kept.id: kept for kept in [*self._by_chance.samples, *self._surprising]}.values())

    def state(self) -> SurpriseState:
        return SurpriseState(
            self._by_chance.state().seen,
            surprising=tuple(sample.id for sample in self._surprising),
            by_chance=tuple(sample.id for sample in self._by_chance.samples),
            losses=dict(sorted(self._kept_losses().items())),
        )

    def load(self, state: ReplayState, samples: Sequence[Sample]) -> None:
        """Of another kind of reservoir: the samples were chosen by chance, and none of them is surprising.

        Raises:
            ValueError: a sample of the state is not among ``samples``.
        """
        if not isinstance(state, SurpriseState) or not (state.surprising or state.by_chance):
            state = SurpriseState(state.seen, by_chance=tuple(sample.id for sample in samples))
        by_id = {sample.id: sample for sample in samples}
        if missing := {*state.surprising, *state.by_chance} - by_id.keys():
            raise ValueError(f"{len(missing)} samples of the state are not there, as {min(missing)}")
        self._losses = dict(state.losses)
        self._by_chance.load(ReplayState(state.seen), [by_id[key] for key in state.by_chance])
        self._surprising = [by_id[key] for key in state.surprising]
        while len(self._surprising) > self._num_surprising:
            self._surprising.pop(self._least_surprising())
        self._settle()
