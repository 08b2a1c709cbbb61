"""The base's own words, by all that it might have said there: α KL(base ‖ model), and of an answer β CE beside it.

To learn an anchor (``anchor.py``) like any text has the model know these few by heart, and the better it does the
worse it foresees all others. The KL has its least value, and no gradient, where the model says what the base says, and
pulls as much where it does not: its gradient is that of the cross-entropy, averaged over what the base might have
written instead. What is compared are the K likeliest tokens (``predictions.py``), here with the one that was written.

An answer to a question is another matter: it is a decision. The base's "Paris" may have been ahead of the rest by
little, and the KL would let a new fact overtake it; the cross-entropy widens the lead. Answers are short, and learnt by
heart they do not change what is said of other things.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.learning import predictions
from lifelong.learning.anchor import is_anchor
from lifelong.learning.base import Learner, Logits
from lifelong.learning.predictions import Predictions
from lifelong.learning.recipe import Method, State

_AT_ONCE = 4
"""Anchors that the base is asked for in a pass: one takes half as long as four, and all would keep the first fact of
a line waiting."""


class AnchorKl(Method):
    """
    Args:
        strength: α. beta: β; with 0 no answer is learnt as such.
        anchors: that will come. When the base is asked for one it is asked for some of these too.
    """

    def __init__(
        self,
        *,
        strength: float,
        beta: float = 0.0,
        anchors: Sequence[Sample] = (),
        num_kept: int = 32,
        tokens_per_pass: int = 512,
    ) -> None:
        if strength < 0:
            raise ValueError(f"strength must not be negative, got {strength}")
        self._strength = strength
        self._beta = beta
        self._anchors = anchors
        self._num_kept = num_kept
        self._tokens_per_pass = tokens_per_pass
        self._base: dict[str, Predictions] = {}

    def loss(self, learner: Learner, samples: Sequence[Sample], predicted: Logits, loss_S: Tensor) -> Tensor:
        if not self._strength:
            return loss_S
        losses = list(loss_S)
        rows = {
            index: predicted.logits_NV[predicted.sample_N == index]
            for index, sample in enumerate(samples)
            if is_anchor(sample)
        }
        self._ask(
            learner, [samples[index] for index, logits_NV in rows.items() if self._lacks(samples[index], logits_NV)]
        )
        for index, logits_NV in rows.items():
            kl = predictions.divergence(self._base[samples[index].id], logits_NV, None).mean()
            losses[index] = self._strength * kl
            if samples[index].messages:
                losses[index] = losses[index] + self._beta * loss_S[index]
        return torch.stack(losses)

    def _lacks(self, anchor: Sample, logits_NV: Tensor) -> bool:
        return anchor.id not in self._base or len(self._base[anchor.id].ids_NK) != len(logits_NV)

    def _ask(self, learner: Learner, anchors: Sequence[Sample]) -> None:
        """The base, once for each."""
        if not anchors:
            return
        asked = self._base.keys() | {anchor.id for anchor in anchors}
        others = [anchor for anchor in self._anchors if anchor.id not in asked]
        anchors = [*anchors, *others[: max(0, _AT_ONCE - len(anchors))]]
        self._base |= predictions.keep_each(
            learner,
            anchors,
            num_kept=self._num_kept,
            tokens_per_pass=self._tokens_per_pass,
            base=True,
            with_true=True,
        )

    def keep(self, sample_ids: Collection[str]) -> None:
        self._base = {key: kept for key, kept in self._base.items() if key in sample_ids}

    def state(self) -> State:
        return predictions.to_tensors(self._base)

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._base = predictions.from_tensors(state)
