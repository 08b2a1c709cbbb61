"""Slow weights: a moving average of the fast ones, which are learnt while the slow ones are served.

Polyak averaging over a window that moves (https://epubs.siam.org/doi/10.1137/0330046; as the slow learner of continual
learning: CLS-ER, https://arxiv.org/abs/2201.12604)::

    θ̄ ← d θ̄ + (1-d) θ,    d = decay^(tokens / reference)   (per step)   or   d = decay   (per version)

Started at zero and divided by 1 - Π d, as Adam's moments are, so that the first values weigh no more than their share:
θ̄ is the mean of the θ seen, weighted by Π of the later d. It is kept in the equivalent form
θ̄ ← θ̄ + (1-d)/(1-Πd) (θ - θ̄), in which equal weights stay as they are.

With LoRA the average is of A and of B, not of BA: between versions that are close, the difference is of second order.

Slow weights cost freshness: what was learnt once is in them by the part 1-d. ``catch_up`` moves them towards the fast
ones by halves, just until somebody says that they know enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner
from lifelong.learning.optimizers import Parameters
from lifelong.learning.recipe import Method, State, check_names


class Ema(Method):
    """
    Args:
        decay: 0 follows the fast weights at once, which is as good as no slow ones.
        every: when the average moves: at each ``step``, ``decay`` being for ``reference_tokens``, or once a
            ``version``.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        decay: float,
        every: Literal["step", "version"] = "step",
        reference_tokens: int = 256,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self._parameters = parameters
        self._decay = decay
        self._every = every
        self._reference_tokens = reference_tokens
        self._slow = {name: p.detach().clone() for name, p in parameters.items()}
        # Π d, on the CPU and in float64: over thousands of steps.
        self._product = torch.ones(1, dtype=torch.float64)
        self._is_swapped = False

    def after_update(self, learner: Learner, num_tokens: int) -> None:
        if self._every == "step":
            self._move(self._decay ** (num_tokens / self._reference_tokens))

    def end(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        if self._every == "version":
            self._move(self._decay)

    def begin_with(self, served: Mapping[str, Tensor]) -> None:
        """These are served until the first move, which is to the fast weights. Raises ValueError: other names or
        shapes."""
        self.load({f"slow.{name}": tensor for name, tensor in served.items()} | {"product": torch.ones(1).double()})

    def _move(self, d: float) -> None:
        self._product *= d
        # Exactly 1 at the first time, and for ever with a decay of 0.
        self._lerp((1 - d) / (1 - self._product.item()))

    def _lerp(self, share: float) -> None:
        assert not self._is_swapped, "the fast weights are not in the parameters now"
        fast = [parameter.data for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self._slow.values()), fast, share)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the parameters are the slow weights: for the gate, and for what is saved to be served."""
        assert not self._is_swapped
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._slow[name] = self._slow[name], parameter.data
        self._is_swapped = not self._is_swapped

    def catch_up(self, is_enough: Callable[[], bool], max_halvings: int) -> int:
        """Halves the way to the fast weights until ``is_enough``, which is asked with the slow weights swapped in.

        Returns:
            How often it was halved.
        """
        for num_halvings in range(max_halvings):
            with self.swapped():
                if is_enough():
                    return num_halvings
            self._lerp(0.5)
        return max_halvings

    def state(self) -> State:
        assert not self._is_swapped
        slow = {f"slow.{name}": tensor.detach().cpu().clone() for name, tensor in self._slow.items()}
        return slow | {"product": self._product.clone()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        check_names(state, self.state())
        for name, tensor in self._slow.items():
            tensor.copy_(state[f"slow.{name}"])
        self._product.copy_(state["product"])
