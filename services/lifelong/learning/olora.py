"""O-LoRA: each task learns in a subspace that is orthogonal to those of the tasks before.

Wang et al., "Orthogonal subspace learning for language model continual learning", https://arxiv.org/abs/2310.14152.
Task t has its own pair of low-rank matrices, those before it stay as they are, all are added up::

    ΔW = Σ_i B_i A_i,     L = CE + λ Σ_{i<t} ‖A_t A_iᵀ‖²      (A as peft has it: a row is a direction of the input)

Here the pairs are blocks of one adapter: rows of its A, columns of its B. So an adapter of rank 8 in four blocks holds
four tasks of rank 2, is served as any other, and its B = 0 of a block to come says nothing yet. When all blocks are
taken, the last one goes on learning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner
from lifelong.learning.optimizers import Parameters
from lifelong.learning.recipe import Gradients, Method, State, check_names


class OLora(Method):
    """
    Args:
        strength: λ. num_blocks: 1 is plain fine-tuning.
        versions_per_block: that a block learns for, for streams without tasks; 0: until somebody calls ``next_block``.
    """

    def __init__(
        self, parameters: Parameters, *, strength: float, num_blocks: int, versions_per_block: int = 0
    ) -> None:
        self._strength = strength
        self._num_blocks = num_blocks
        self._versions_per_block = versions_per_block
        self._pairs = [(n, n.replace(".lora_A.", ".lora_B.")) for n in parameters if ".lora_A." in n]
        if not self._pairs or {n for pair in self._pairs for n in pair} != parameters.keys():
            raise ValueError("only an adapter has blocks: there are parameters that are no pair of lora_A and lora_B")
        rank = min(parameters[a].shape[0] for a, _ in self._pairs)
        if not 1 <= num_blocks <= rank:
            raise ValueError(f"an adapter of rank {rank} has 1 to {rank} blocks, not {num_blocks}")
        self._block = torch.zeros(1, dtype=torch.int64)
        self._num_versions = torch.zeros(1, dtype=torch.int64)
        self._still: Gradients = {}

    def next_block(self) -> None:
        """A task is over."""
        self._block.add_(1).clamp_(max=self._num_blocks - 1)
        self._num_versions.zero_()

    def penalty(self, learner: Learner) -> Tensor | None:
        if not self._strength or self._block == 0:
            return None
        overlaps = []
        for name, _ in self._pairs:
            a_RD = learner.parameters[name]
            now = self._rows(len(a_RD))
            overlaps.append((a_RD[now] @ a_RD[: now.start].detach().T).square().sum())
        return self._strength * torch.stack(overlaps).sum()

    @torch.no_grad()
    def before_update(self, learner: Learner) -> None:
        if self._num_blocks == 1:
            return
        # Momentum and weight decay move also what has no gradient: it is put back.
        self._still = {name: parameter.detach().clone() for name, parameter in learner.parameters.items()}
        for name, mask in self._masks(learner).items():
            gradient = learner.parameters[name].grad
            if gradient is not None:
                gradient.mul_(mask)

    @torch.no_grad()
    def after_update(self, learner: Learner, num_tokens: int) -> None:
        if self._num_blocks > 1:
            for name, mask in self._masks(learner).items():
                parameter = learner.parameters[name]
                parameter.copy_(torch.where(mask, parameter, self._still[name]))
        self._still = {}

    def end(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        self._num_versions += 1
        if self._versions_per_block and self._num_versions >= self._versions_per_block:
            self.next_block()

    def _rows(self, rank: int) -> slice:
        block = int(self._block)
        return slice(block * rank // self._num_blocks, (block + 1) * rank // self._num_blocks)

    def _masks(self, learner: Learner) -> Gradients:
        """Where the present block is, of shapes (R, 1) and (R)."""
        masks = {}
        for a, b in self._pairs:
            parameter = learner.parameters[a]
            is_now_R = torch.zeros(len(parameter), dtype=torch.bool, device=parameter.device)
            is_now_R[self._rows(len(parameter))] = True
            masks[a], masks[b] = is_now_R[:, None], is_now_R
        return masks

    def state(self) -> State:
        return {"block": self._block.clone(), "num_versions": self._num_versions.clone()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        check_names(state, self.state())
        if not 0 <= state["block"].item() < self._num_blocks:
            raise ValueError(f"block {int(state['block'])} of {self._num_blocks}")
        self._block.copy_(state["block"])
        self._num_versions.copy_(state["num_versions"])
