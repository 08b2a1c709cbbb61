"""How well what comes in was known before it was learnt, by task: each sample is a test first and a lesson after.

"Prequential" is Dawid's word ("Statistical theory: the prequential approach", 1984). The mean over all time reacts to
nothing any more after a while, so old samples fade (Gama, Sebastião and Rodrigues, "On evaluating stream learning
algorithms", https://doi.org/10.1007/s10994-012-5320-9, eq. 8)::

    E_i = S_i / B_i,    S_i = L_i + α S_{i-1},    B_i = 1 + α B_{i-1}

With α = 0.99 the last hundred samples of a task have two thirds of the weight.

Right is an answer if each of its tokens was the first choice: then, and only then, is it what greedy decoding says.
"""

from __future__ import annotations

import math

import msgspec

from lifelong.contracts.samples import Sample

FADING = 0.99
"""α, at each sample."""


class Faded(msgspec.Struct, frozen=True):
    """A fading mean. S and B above."""

    total: float = 0.0
    weight: float = 0.0

    def plus(self, value: float) -> Faded:
        return Faded(value + FADING * self.total, 1 + FADING * self.weight)

    @property
    def mean(self) -> float:
        assert self.weight, "the mean of nothing"
        return self.total / self.weight


class PrequentialState(msgspec.Struct, frozen=True):
    """By task."""

    losses: dict[str, Faded] = {}
    """Nats per token."""
    right: dict[str, Faded] = {}
    """1 for a right answer, 0 for a wrong one."""


class Prequential:
    def __init__(self) -> None:
        self._losses: dict[str, Faded] = {}
        self._right: dict[str, Faded] = {}

    def saw(self, task: str, loss: float, was_right: bool | None) -> None:
        """``was_right``: ``None`` for what has no answer that could be."""
        if math.isfinite(loss):
            self._losses[task] = self._losses.get(task, Faded()).plus(loss)
        if was_right is not None:
            self._right[task] = self._right.get(task, Faded()).plus(float(was_right))

    @property
    def losses(self) -> dict[str, float]:
        """By task, nats per token."""
        return {task: faded.mean for task, faded in self._losses.items()}

    @property
    def accuracies(self) -> dict[str, float]:
        """By task, of those whose samples have answers."""
        return {task: faded.mean for task, faded in self._right.items()}

    def state(self) -> PrequentialState:
        return PrequentialState(dict(self._losses), dict(self._right))

    def load(self, state: PrequentialState) -> None:
        self._losses, self._right = dict(state.losses), dict(state.right)


def is_answer(sample: Sample) -> bool:
    """Whether it asks for one answer that is right or wrong: one turn of the assistant, the last one."""
    is_said = [message.role == "assistant" for message in sample.messages]
    return len(is_said) > 1 and is_said[-1] and is_said.count(True) == 1
