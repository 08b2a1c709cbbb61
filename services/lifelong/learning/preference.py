"""Of two answers the better one: direct preference optimisation.

Rafailov et al., "Direct preference optimization: your language model is secretly a reward model",
https://arxiv.org/abs/2305.18290, eq. 7::

    L = -ln σ(β [ln π(y_w|x)/π_ref(y_w|x) - ln π(y_l|x)/π_ref(y_l|x)])

A sample with ``rejected`` is such a pair if its messages end in an answer, y_w. DPO alone may make both answers less
likely, as long as the worse one loses more; the cross-entropy of y_w, which such a sample has anyway, holds against
that (https://arxiv.org/abs/2404.19733).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner, Logits
from lifelong.learning.recipe import Method, State
from lifelong.learning.reference import Kind, Reference, sequence_logprobs


def dpo_loss(chosen_P: Tensor, rejected_P: Tensor, ref_chosen_P: Tensor, ref_rejected_P: Tensor, beta: float) -> Tensor:
    """loss_P of P pairs, from the log-probabilities of whole answers; ln 2 where nothing has moved."""
    return -F.logsigmoid(beta * ((chosen_P - ref_chosen_P) - (rejected_P - ref_rejected_P)))


def is_pair(sample: Sample) -> bool:
    """Whether there are two answers; a disliked one alone has no better one."""
    return sample.rejected is not None and bool(sample.messages) and sample.messages[-1].role == "assistant"


def rejected_answer(sample: Sample) -> Sample:
    """The same pair the other way round, so that the same tokens of it are targets."""
    assert sample.rejected is not None
    chosen = sample.messages[-1]
    messages = (*sample.messages[:-1], msgspec.structs.replace(chosen, content=sample.rejected))
    return msgspec.structs.replace(sample, id=f"{sample.id}/rejected", messages=messages, rejected=chosen.content)


class Dpo(Method):
    """L = ``of_chosen`` · CE(y_w) + ``strength`` · DPO, for samples that have a rejected answer.

    A pass with pairs in it has their rejected answers in a pass of its own, so up to twice the tokens are held.
    """

    def __init__(self, *, strength: float, beta: float = 0.1, of_chosen: float = 1.0, reference: Kind = "base") -> None:
        if beta <= 0:
            raise ValueError(f"beta must be positive, got {beta}")
        self._strength = strength
        self._beta = beta
        self._of_chosen = of_chosen
        self._reference = Reference(reference)

    def begin(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        self._reference.begin()

    def loss(self, learner: Learner, samples: Sequence[Sample], predicted: Logits, loss_S: Tensor) -> Tensor:
        if not self._strength:
            return loss_S
        others = {
            index: other
            for index, sample in enumerate(samples)
            if is_pair(sample) and learner.num_targets(other := rejected_answer(sample))
        }
        if not others:
            return loss_S
        chosen = [samples[index] for index in others]
        rejected = list(others.values())
        pairs_P = torch.tensor(list(others), device=loss_S.device)
        loss_P = dpo_loss(
            sequence_logprobs(predicted, len(samples))[pairs_P],
            sequence_logprobs(learner.logits(rejected), len(rejected)),
            self._reference.logprobs(learner, chosen),
            self._reference.logprobs(learner, rejected),
            self._beta,
        )
        mixed_P = self._of_chosen * loss_S[pairs_P] + self._strength * loss_P
        return loss_S.index_copy(0, pairs_P, mixed_P.to(loss_S.dtype))

    def keep(self, sample_ids: Collection[str]) -> None:
        self._reference.keep(sample_ids)

    def state(self) -> State:
        return self._reference.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._reference.load(state)
