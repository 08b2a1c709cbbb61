"""What is new is learnt in directions that the base's own words leave free.

A linear layer with an adapter gives W x + B A x. One fact, learnt until it is known, makes B A x large for the x of
that fact, and with it for whatever looks like it to the layer, as the beginnings of all answers do. If the rows of A
are orthogonal to most of what the x at the base's own words (``anchor.py``) are made of, then A x is small there,
whatever B becomes::

    X: the inputs of a layer at those words, a row each, of length 1;   XᵀX = V Λ Vᵀ
    U: the eigenvectors of the largest eigenvalues, as few as have 1-ε of their sum
    A ← A (1 - U Uᵀ) when a line begins, its rows as long as before;   then ∇A and each step of A by the same projection

LoRA-Null (https://arxiv.org/abs/2503.02659) begins there; that each step stays there is gradient projection memory
(https://arxiv.org/abs/2103.09762) and, for single facts, AlphaEdit (https://arxiv.org/abs/2410.02355). What they call a
null space has a share ε of the energy left in it: where there is none at all, little could be learnt.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lifelong.learning.base import Learner
from lifelong.learning.optimizers import Parameters
from lifelong.learning.recipe import Gradients, Method


class NullSpace(Method):
    """Moves A, in place, to where it begins: what is made after this takes it for the beginning.

    Nothing is remembered between micro-batches: ``U`` follows from the inputs, which are those of the frozen base.

    Args:
        inputs: of each A by its name, (N, D). Those that are one object are looked at once.
        energy: ε. 1 is plain fine-tuning.

    Raises:
        ValueError: there are no inputs for some A, or no A.
    """

    def __init__(self, parameters: Parameters, inputs: Mapping[str, Tensor], *, energy: float) -> None:
        if not 0 < energy <= 1:
            raise ValueError(f"energy must be in (0, 1], got {energy}")
        names = [name for name in parameters if ".lora_A." in name]
        if not names or not inputs.keys() >= set(names):
            raise ValueError(
                "recipe.null_space needs an adapter, and what its layers are given at the base's own words, of which "
                "there are none; set it to 0"
            )
        found: dict[int, Tensor] = {}
        self._used: Gradients = {}
        """U by the name of A, (D, K)."""
        for name in names:
            inputs_ND = inputs[name]
            if id(inputs_ND) not in found:
                found[id(inputs_ND)] = used_directions(inputs_ND, energy)
            if found[id(inputs_ND)].shape[1]:
                self._used[name] = found[id(inputs_ND)]
        self._before: Gradients = {}
        with torch.no_grad():
            for name, used_DK in self._used.items():
                a_RD = parameters[name]
                length_R1 = a_RD.norm(dim=1, keepdim=True)
                _project(a_RD, used_DK)
                a_RD.mul_(length_R1 / a_RD.norm(dim=1, keepdim=True).clamp(min=1e-12))

    @torch.no_grad()
    def before_update(self, learner: Learner) -> None:
        for name, used_DK in self._used.items():
            if (gradient := learner.parameters[name].grad) is not None:
                _project(gradient, used_DK)
                # What the optimizer makes of it, element by element, points elsewhere again.
                self._before[name] = learner.parameters[name].detach().clone()

    @torch.no_grad()
    def after_update(self, learner: Learner, num_tokens: int) -> None:
        for name, before_RD in self._before.items():
            step_RD = learner.parameters[name] - before_RD
            _project(step_RD, self._used[name])
            learner.parameters[name].copy_(before_RD + step_RD)
        self._before = {}


def used_directions(inputs_ND: Tensor, energy: float) -> Tensor:
    """U, (D, K): orthonormal columns that leave at most the share ``energy`` of the squares of the rows, which all
    count the same."""
    x_ND = torch.nn.functional.normalize(inputs_ND.float(), dim=1)
    is_wide = x_ND.shape[0] < x_ND.shape[1]
    # Of XᵀX and XXᵀ the smaller one: they have the same eigenvalues but for zeros.
    values, vectors = torch.linalg.eigh(x_ND @ x_ND.T if is_wide else x_ND.T @ x_ND)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    left = 1 - values.cumsum(0) / values.sum()
    num_used = int((left > energy).sum()) + 1 if energy < 1 else 0
    used = vectors[:, :num_used]
    if is_wide:
        used = x_ND.T @ used / values[:num_used].sqrt()
    directions_DK: Tensor = used.contiguous()
    return directions_DK


def _project(rows_RD: Tensor, used_DK: Tensor) -> None:
    """In place: what is left without these directions."""
    rows_RD.sub_((rows_RD @ used_DK) @ used_DK.T)
