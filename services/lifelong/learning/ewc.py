"""Elastic weight consolidation: what mattered for the past is held in place, by how much it mattered.

Kirkpatrick et al., "Overcoming catastrophic forgetting", https://arxiv.org/abs/1612.00796, eq. 3::

    L = L_new + λ/2 Σ_i F_i (θ_i - θ*_i)²

Online (Schwarz et al., "Progress & compress", https://arxiv.org/abs/1805.06370)::

    F ← γ F + F_k / ‖F_k‖,    θ* ← θ    after task k

A stream has no tasks; ``every`` so many versions, or when ``settle`` is called because something has changed, what was
learnt since counts as one. Settled at each micro-batch of one step it would do nothing: the penalty has no gradient at
θ*, where the step begins.

The original has one such term for each k, with an anchor each. Their sum is one quadratic around the mean of the
anchors weighted by F, and a constant (Huszár, https://arxiv.org/abs/1712.03847): ``centre="mean"`` with γ = 1, in the
same space. Without normalising, λ would mean something else for every task and every loss.

F_k is the mean over samples of the *squares* of each sample's gradient, not the square of the mean gradient, which
vanishes where samples disagree and is the common bug. The loss of a sample is the mean over its tokens, as it is
learnt. ``labels="model"`` draws the labels from the model, as the definition of the Fisher information has it; with
the true ones it is the "empirical Fisher" (https://arxiv.org/abs/1905.12558), which everybody uses.

F is taken of A and of B, not of W + BA (EWC-LoRA, https://arxiv.org/abs/2602.17559): that one has out × in numbers a
module, 35 times the adapter, in every version, and the gradients of W that it is made of are not those of parameters
that learn. Near the anchor, which is re-centred, the quadratic in A and B approximates the same loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner, Logits
from lifelong.learning.losses import sample_losses
from lifelong.learning.optimizers import Parameters
from lifelong.learning.recipe import Gradients, Method, State, check_names
from lifelong.learning.replay import randbelow

Labels = Literal["data", "model"]


class Ewc(Method):
    """
    Args:
        strength: λ; with normalised F, 25 to 175 in the paper.
        decay: γ, each time that it settles.
        every: versions after which it settles.
        max_samples: of each micro-batch that F_k is computed from; each costs a pass forward and backward.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        strength: float,
        decay: float = 0.99,
        centre: Literal["newest", "mean"] = "newest",
        normalise: bool = True,
        labels: Labels = "data",
        every: int = 16,
        max_samples: int = 2,
        seed: int = 0,
    ) -> None:
        self._strength = strength
        self._decay = decay
        self._centre = centre
        self._normalise = normalise
        self._labels = labels
        self._every = every
        self._max_samples = max_samples
        self._seed = seed
        self._fisher = {name: torch.zeros_like(p.data) for name, p in parameters.items()} if strength else {}
        self._anchor = {name: p.detach().clone() for name, p in parameters.items()} if strength else {}
        # Of F_k, up to now: the sum over samples.
        self._collected = {name: torch.zeros_like(f) for name, f in self._fisher.items()}
        self._num_samples, self._num_versions = 0, 0

    def penalty(self, learner: Learner) -> Tensor | None:
        if not self._strength:
            return None
        theta = learner.parameters
        terms = [(f * (theta[name] - self._anchor[name]) ** 2).sum() for name, f in self._fisher.items()]
        return self._strength / 2 * torch.stack(terms).sum()

    def end(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        if self._strength:
            left = list(new)
            chosen = [
                left.pop(randbelow(len(left), self._seed, "fisher", version, turn))
                for turn in range(min(self._max_samples, len(left)))
            ]
            for name, f in fisher(learner, chosen, self._labels, self._seed, version).items():
                self._collected[name] += len(chosen) * f
            self._num_samples += len(chosen)
            self._num_versions += 1
            if self._num_versions == self._every:
                self.settle(learner)

    def settle(self, learner: Learner) -> None:
        """What was learnt since the last time is to be held from now on."""
        if self._num_samples:
            self.consolidate(learner, {name: f / self._num_samples for name, f in self._collected.items()})
            self._num_samples, self._num_versions = 0, 0
            for f in self._collected.values():
                f.zero_()

    def consolidate(self, learner: Learner, fisher_k: Gradients) -> None:
        """One task: the weights as they are are to be held, ``fisher_k`` saying how much each of them matters."""
        norm = torch.stack([f.norm() for f in fisher_k.values()]).norm()
        if norm == 0:
            return  # certain of everything: nothing is known about what matters
        for name, parameter in learner.parameters.items():
            f = fisher_k[name] / norm if self._normalise else fisher_k[name]
            theta, old = parameter.detach(), self._decay * self._fisher[name]
            self._fisher[name] = old + f
            if self._centre == "newest":
                self._anchor[name] = theta.clone()
            else:
                mean = (old * self._anchor[name] + f * theta) / self._fisher[name]
                self._anchor[name] = torch.where(self._fisher[name] > 0, mean, theta)

    def state(self) -> State:
        if not self._strength:
            return {}
        named = {f"{kind}.{name}": t for kind, tensors in self._tensors() for name, t in tensors.items()}
        numbers = torch.tensor([self._num_samples, self._num_versions])
        return {name: tensor.cpu().clone() for name, tensor in named.items()} | {"numbers": numbers}

    def load(self, state: Mapping[str, Tensor]) -> None:
        check_names(state, self.state())
        if state:
            for kind, tensors in self._tensors():
                for name, tensor in tensors.items():
                    tensors[name] = state[f"{kind}.{name}"].to(tensor, copy=True)
            self._num_samples, self._num_versions = state["numbers"].tolist()

    def _tensors(self) -> list[tuple[str, Gradients]]:
        return [("fisher", self._fisher), ("anchor", self._anchor), ("collected", self._collected)]


def fisher(learner: Learner, samples: Sequence[Sample], labels: Labels = "data", *key: int | str) -> Gradients:
    """F_i = 1/S Σ_s (∂ loss_s / ∂θ_i)², one sample at a time. ``key``: of the labels that the model draws."""
    assert samples
    theta = dict(learner.parameters)
    total = {name: torch.zeros_like(parameter.data) for name, parameter in theta.items()}
    for sample in samples:
        predicted = learner.logits([sample])
        targets_N = predicted.targets_N if labels == "data" else _drawn(predicted.logits_NV, *key, sample.id)
        loss = sample_losses(Logits(predicted.logits_NV, targets_N, predicted.sample_N), 1).sum()
        gradients = torch.autograd.grad(loss, list(theta.values()), allow_unused=True)
        for name, gradient in zip(theta, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient**2 / len(samples)
    return total


def _drawn(logits_NV: Tensor, *key: int | str) -> Tensor:
    """A token for each of the N, from the distribution that the logits are."""
    cumulative_NV = logits_NV.detach().double().softmax(dim=-1).cumsum(dim=-1)
    uniform = [randbelow(2**53, *key, token) / 2**53 for token in range(len(logits_NV))]
    below_N1 = torch.tensor(uniform, dtype=torch.float64, device=logits_NV.device)[:, None]
    return torch.searchsorted(cumulative_NV, below_N1, right=True).squeeze(1).clamp(max=logits_NV.shape[1] - 1)
