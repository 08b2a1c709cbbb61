"""Dynamic evaluation: what was learnt fades towards the prior unless it is used again.

Krause et al., "Dynamic evaluation of neural sequence models", https://arxiv.org/abs/1709.07432: after each step::

    θ ← θ + λ (θ_g - θ) ⊙ r,     r = √MS / mean(√MS),  λ r ≤ 1

θ_g are the weights that the line began with; MS is the mean square of each parameter's gradient on some text that is
typical of what the prior knows: what matters for it returns the faster. Without MS, r = 1. The paper's other half, the
step divided by √MS, is the business of the optimizer.

λ is for a step of ``reference_tokens``; a smaller step fades less, so that the half-life in tokens stays.

An adapter begins with B = 0, so that ΔW = BA fades to nothing, and with it whatever differs from the base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner
from lifelong.learning.ewc import fisher
from lifelong.learning.optimizers import Parameters
from lifelong.learning.recipe import Method, State, check_names


class DynamicEvaluation(Method):
    """
    Args:
        parameters: as they are now, they are the prior.
        decay: λ.
    """

    def __init__(self, parameters: Parameters, *, decay: float, reference_tokens: int = 256) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self._decay = decay
        self._reference_tokens = reference_tokens
        self._prior = {name: p.detach().clone() for name, p in parameters.items()} if decay else {}
        self._rate = {name: torch.ones_like(prior) for name, prior in self._prior.items()}

    def measure(self, learner: Learner, samples: Sequence[Sample]) -> None:
        """From now on r is that of these samples, at the present weights."""
        rms = {name: square.sqrt() for name, square in fisher(learner, samples).items()}
        mean = sum(float(t.double().sum()) for t in rms.values()) / sum(t.numel() for t in rms.values())
        if mean and self._decay:
            self._rate = {name: t / mean for name, t in rms.items()}

    @torch.no_grad()
    def after_update(self, learner: Learner, num_tokens: int) -> None:
        if self._decay:
            share = 1 - (1 - self._decay) ** (num_tokens / self._reference_tokens)
            for name, parameter in learner.parameters.items():
                parameter.lerp_(self._prior[name], (share * self._rate[name]).clamp(max=1))

    def state(self) -> State:
        named = {f"prior.{n}": t for n, t in self._prior.items()} | {f"rate.{n}": t for n, t in self._rate.items()}
        return {name: tensor.cpu().clone() for name, tensor in named.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        check_names(state, self.state())
        for kind, tensors in (("prior", self._prior), ("rate", self._rate)):
            for name, tensor in tensors.items():
                tensors[name] = state[f"{kind}.{name}"].to(tensor, copy=True)
