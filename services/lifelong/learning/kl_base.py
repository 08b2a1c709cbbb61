"""Staying near what was said before, on the very samples that are learnt.

``KlToBase``: L = CE + β KL(base ‖ model). The KL from the base on what comes in predicts what is forgotten ("RL's
Razor", https://arxiv.org/abs/2509.04259), so it is held down where nothing is to be learnt: on the tokens besides the
true one, which the two terms would otherwise pull apart (https://arxiv.org/abs/2605.29498).

``LearningWithoutForgetting`` (Li and Hoiem, https://arxiv.org/abs/1606.09282): L = CE + λ T² KL(before ‖ model), where
*before* is the model before a task, asked about the new samples; no old ones are needed. The paper's loss is the
cross-entropy with the softened answers of before, which is that KL and a constant. A stream has no tasks; the teacher
is the model as it was up to ``every`` versions ago. Renewed at each micro-batch of one step it would teach nothing: the
KL has no gradient where the model is still its teacher.

In both the KL is over the K likeliest tokens, each sample's mean over its target tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner, Logits
from lifelong.learning.der import mix
from lifelong.learning.optimizers import Parameters
from lifelong.learning.predictions import Predictions, keep_each
from lifelong.learning.recipe import Method, State, check_names


class KlToBase(Method):
    """The base is asked once about each sample of a micro-batch: a pass without gradient, old samples included.

    Args:
        strength: β.
    """

    def __init__(self, *, strength: float, num_kept: int = 32, tokens_per_pass: int = 512) -> None:
        self._strength = strength
        self._num_kept = num_kept
        self._tokens_per_pass = tokens_per_pass
        self._base: dict[str, Predictions] = {}

    def begin(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        self._base = {}

    def loss(self, learner: Learner, samples: Sequence[Sample], predicted: Logits, loss_S: Tensor) -> Tensor:
        if not self._strength:
            return loss_S
        unasked = [sample for sample in samples if sample.id not in self._base]
        self._base |= keep_each(
            learner, unasked, num_kept=self._num_kept, tokens_per_pass=self._tokens_per_pass, base=True
        )
        return mix(self._base, samples, predicted, loss_S, 1.0, self._strength)

    def end(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        self._base = {}


class LearningWithoutForgetting(Method):
    """
    Args:
        strength: λ; 1 in the paper. temperature: T; 2 in the paper.
        every: versions for which the teacher stays the same.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        strength: float,
        temperature: float = 2.0,
        every: int = 16,
        num_kept: int = 32,
        tokens_per_pass: int = 512,
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self._teacher = {name: p.detach().clone() for name, p in parameters.items()} if strength else {}
        self._num_versions = 0
        self._every = every
        self._strength = strength
        self._temperature = temperature
        self._num_kept = num_kept
        self._tokens_per_pass = tokens_per_pass
        self._before: dict[str, Predictions] = {}

    def begin(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        if not self._strength:
            return
        if self._num_versions % self._every == 0:
            self._teacher = {name: p.detach().clone() for name, p in learner.parameters.items()}
        self._num_versions += 1
        self._exchange(learner)
        self._before = keep_each(
            learner,
            new,
            num_kept=self._num_kept,
            tokens_per_pass=self._tokens_per_pass,
            temperature=self._temperature,
        )
        self._exchange(learner)

    def loss(self, learner: Learner, samples: Sequence[Sample], predicted: Logits, loss_S: Tensor) -> Tensor:
        return mix(self._before, samples, predicted, loss_S, 1.0, self._strength, self._temperature)

    def end(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        self._before = {}

    def _exchange(self, learner: Learner) -> None:
        for name, parameter in learner.parameters.items():
            parameter.data, self._teacher[name] = self._teacher[name], parameter.data

    def state(self) -> State:
        if self._every == 1 or not self._strength:
            return {}
        teacher = {f"teacher.{name}": tensor.cpu().clone() for name, tensor in self._teacher.items()}
        return teacher | {"num_versions": torch.tensor([self._num_versions])}

    def load(self, state: Mapping[str, Tensor]) -> None:
        check_names(state, self.state())
        if state:
            self._teacher = {n: state[f"teacher.{n}"].to(t, copy=True) for n, t in self._teacher.items()}
            self._num_versions = int(state["num_versions"])
