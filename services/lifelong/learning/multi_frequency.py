"""Groups of parameters that move at different frequencies: what moves seldom follows only what lasts.

Behrouz et al., "Nested learning", https://arxiv.org/abs/2512.24695, the continuum memory system: a group with period
k moves at every k-th step, along the gradients of the k steps since it last did. Here along their mean, so that
it is a micro-batch k times as large and the learning rate keeps its meaning.

The steps of all micro-batches are counted together, those that one stubborn fact took included. AdamW's second moment
sees only the tokens of the last of the k steps, so that its half-life is k times as long for such a group.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lifelong.learning.base import Learner
from lifelong.learning.optimizers import Parameters
from lifelong.learning.recipe import Method, State, check_names

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h)\.(\d+)\.")


class MultiFrequency(Method):
    """
    Args:
        periods: k for each parameter by its name; 1 moves at each step.
    """

    def __init__(self, parameters: Parameters, *, periods: Mapping[str, int]) -> None:
        if periods.keys() != parameters.keys():
            raise ValueError(f"periods for other parameters: {sorted(periods.keys() ^ parameters.keys())[:3]} …")
        if short := [name for name, period in periods.items() if period < 1]:
            raise ValueError(f"{short[0]}: a period must be at least 1, got {periods[short[0]]}")
        self._periods = dict(periods)
        self._sums = {name: torch.zeros_like(p.data) for name, p in parameters.items() if periods[name] > 1}
        self._num_steps = torch.zeros(1, dtype=torch.int64)

    def before_update(self, learner: Learner) -> None:
        self._num_steps += 1
        for name, collected in self._sums.items():
            parameter, period = learner.parameters[name], self._periods[name]
            if parameter.grad is not None:
                collected += parameter.grad
                parameter.grad = None
            if self._num_steps.item() % period == 0:
                parameter.grad = collected / period
                collected.zero_()

    def state(self) -> State:
        if not self._sums:
            return {}
        sums = {f"sum.{name}": tensor.cpu().clone() for name, tensor in self._sums.items()}
        return sums | {"num_steps": self._num_steps.clone()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        check_names(state, self.state())
        if self._sums:
            self._num_steps.copy_(state["num_steps"])
            for name, tensor in self._sums.items():
                tensor.copy_(state[f"sum.{name}"])


def by_layer(names: Iterable[str], periods: Sequence[int]) -> dict[str, int]:
    """The layers in as many equal parts as there are periods: the first is that of the lowest layers, which are to
    change least. What belongs to no layer has the last one.

    Raises:
        ValueError: no periods.
    """
    if not periods:
        raise ValueError("at least one period is needed")
    layer_of = {name: _layer(name) for name in names}
    layers = sorted({layer for layer in layer_of.values() if layer is not None})
    part = {layer: index * len(periods) // len(layers) for index, layer in enumerate(layers)}
    return {name: periods[-1] if layer is None else periods[part[layer]] for name, layer in layer_of.items()}


def _layer(name: str) -> int | None:
    found = _LAYER.search(name)
    return None if found is None else int(found.group(1))
