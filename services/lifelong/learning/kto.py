"""What somebody liked or disliked: Kahneman-Tversky optimisation, for answers that were rated one by one.

Ethayarajh et al., "KTO: model alignment as prospect theoretic optimization", https://arxiv.org/abs/2402.01306, eq. 8.
With r = ln π(y|x)/π_ref(y|x) and a point of reference z₀::

    L = λ_y - v,    v = λ_D σ(β (r - z₀))   if y was liked
                    v = λ_U σ(β (z₀ - r))   if y was disliked

z₀ estimates KL(π ‖ π_ref): the mean r of answers given to the questions of others, not below 0, and without a gradient.
Here it is estimated once a micro-batch, before its first step, on the new rated samples; a lone one has no other, and
against the model as it was before, nothing has moved: z₀ = 0. How strong a rating is, is in the weight of its sample.

A disliked answer comes as ``rejected`` of a question without answer, of weight 0, so that nobody imitates it by
mistake: ``disliked_answer`` makes a sample of it that this method can learn. Its cross-entropy counts nothing. A
correction is not what was rated, and what has a better answer beside it is for ``preference``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
import torch
from torch import Tensor

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner, Logits
from lifelong.learning.recipe import Method, State
from lifelong.learning.reference import Kind, Reference, sequence_logprobs


def kto_loss(
    log_ratio_S: Tensor, liked_S: Tensor, z0: float, *, beta: float, of_liked: float = 1.0, of_disliked: float = 1.0
) -> Tensor:
    """loss_S, from r_S and whether each was liked; λ/2 where nothing has moved."""
    distance_S = beta * (log_ratio_S - z0)
    return torch.where(liked_S, of_liked * torch.sigmoid(-distance_S), of_disliked * torch.sigmoid(distance_S))


def is_rated(sample: Sample) -> bool:
    return bool(sample.rating) and not sample.until_known and sample.rejected is None


def disliked_answer(sample: Sample) -> Sample | None:
    """The conversation with the answer that was disliked, as heavy as the dislike; ``None`` if there is none."""
    if sample.rejected is None or sample.rating is None or sample.rating >= 0 or sample.until_known:
        return None
    messages = (*sample.messages, Message("assistant", sample.rejected))
    return msgspec.structs.replace(sample, messages=messages, rejected=None, weight=-sample.rating)


class Kto(Method):
    """L = CE + ``strength`` · KTO for what was liked, without CE for what was disliked.

    Args:
        of_liked: λ_D. of_disliked: λ_U; λ_D n_D / (λ_U n_U) should be between 1 and 3/2 (ibid.).
    """

    def __init__(
        self,
        *,
        strength: float,
        beta: float = 0.1,
        of_liked: float = 1.0,
        of_disliked: float = 1.0,
        reference: Kind = "base",
    ) -> None:
        if beta <= 0:
            raise ValueError(f"beta must be positive, got {beta}")
        self._strength = strength
        self._beta = beta
        self._of_liked = of_liked
        self._of_disliked = of_disliked
        self._kind = reference
        self._reference = Reference(reference)
        self._z0 = 0.0

    @torch.no_grad()
    def begin(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        self._reference.begin()
        rated = [sample for sample in new if is_rated(sample)]
        self._z0 = 0.0
        if self._strength and self._kind == "base" and len(rated) > 1:
            mismatched = [_with_answer_of(a, b) for a, b in zip(rated, [*rated[1:], rated[0]], strict=True)]
            now_S = sequence_logprobs(learner.logits(mismatched), len(mismatched))
            base_S = sequence_logprobs(learner.logits(mismatched, base=True), len(mismatched))
            self._z0 = max(0.0, float((now_S - base_S).mean()))

    def loss(self, learner: Learner, samples: Sequence[Sample], predicted: Logits, loss_S: Tensor) -> Tensor:
        rated = [index for index, sample in enumerate(samples) if is_rated(sample)]
        if not rated or not self._strength:
            return loss_S
        rated_R = torch.tensor(rated, device=loss_S.device)
        rating_R = torch.tensor([samples[index].rating for index in rated], device=loss_S.device)
        before_R = self._reference.logprobs(learner, [samples[index] for index in rated])
        log_ratio_R = sequence_logprobs(predicted, len(samples))[rated_R] - before_R
        kto_R = kto_loss(
            log_ratio_R,
            rating_R > 0,
            self._z0,
            beta=self._beta,
            of_liked=self._of_liked,
            of_disliked=self._of_disliked,
        )
        imitated_R = torch.where(rating_R > 0, loss_S[rated_R], 0.0)
        mixed_R = imitated_R + self._strength * kto_R
        return loss_S.index_copy(0, rated_R, mixed_R.to(loss_S.dtype))

    def keep(self, sample_ids: Collection[str]) -> None:
        self._reference.keep(sample_ids)

    def state(self) -> State:
        return self._reference.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._reference.load(state)


def _with_answer_of(sample: Sample, other: Sample) -> Sample:
    messages = (*sample.messages[:-1], other.messages[-1])
    return msgspec.structs.replace(sample, id=f"{sample.id}/mismatched", messages=messages)
