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

from collections.abc import Iterable, Mapping, Sequence

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
        groups: dict[int, tuple[list[str], Tensor]] = {}
        for name in names:
            inputs_ND = inputs[name]
            if id(inputs_ND) not in groups:
                groups[id(inputs_ND)] = [], used_directions(inputs_ND, energy)
            groups[id(inputs_ND)][0].append(name)
        self._used = [(some, used_DK) for some, used_DK in groups.values() if used_DK.shape[1]]
        """(names of A, U, (D, K)): those that are given the same together, for to read U takes longest."""
        self._before: Gradients = {}
        with torch.no_grad():
            for some, used_DK in self._used:
                given = [parameters[name] for name in some]
                lengths = [a_RD.norm(dim=1, keepdim=True) for a_RD in given]
                for a_RD, in_use_RD, length_R1 in zip(given, _in_use(given, used_DK), lengths, strict=True):
                    a_RD.sub_(in_use_RD)
                    a_RD.mul_(length_R1 / a_RD.norm(dim=1, keepdim=True).clamp(min=1e-12))

    @torch.no_grad()
    def before_update(self, learner: Learner) -> None:
        for names, used_DK in self._used:
            gradients = {name: g for name in names if (g := learner.parameters[name].grad) is not None}
            for gradient, in_use_RD in zip(gradients.values(), _in_use(gradients.values(), used_DK), strict=True):
                gradient.sub_(in_use_RD)
            # What the optimizer makes of it, element by element, points elsewhere again.
            self._before |= {name: learner.parameters[name].detach().clone() for name in gradients}

    @torch.no_grad()
    def after_update(self, learner: Learner, num_tokens: int) -> None:
        for names, used_DK in self._used:
            moved = [name for name in names if name in self._before]
            steps = [learner.parameters[name] - self._before[name] for name in moved]
            for name, in_use_RD in zip(moved, _in_use(steps, used_DK), strict=True):
                learner.parameters[name].sub_(in_use_RD)
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


def _in_use(some: Iterable[Tensor], used_DK: Tensor) -> Sequence[Tensor]:
    """Of each, (R, D), what lies in these directions."""
    given = list(some)
    if not given:
        return []
    return torch.split((torch.cat(given) @ used_DK) @ used_DK.T, [len(each) for each in given])
