"""DER++: old samples are learnt again together with what was said of them when they were learnt.

Buzzega et al., "Dark experience for general continual learning", https://arxiv.org/abs/2004.07211, eq. 6:
L = CE(new) + α ‖z - h(x)‖² + β CE(old). Here the match with the kept responses is a KL instead of the squared distance
of logits (the paper derives the one from the other), of the K likeliest tokens and without the true one::

    L(old) = β CE + α KL(kept ‖ model)

Kept is what the model says at the end of the micro-batch that taught the sample, which costs a pass forward of all
that is new; or what it says when the sample is first replayed, which the training pass has computed anyway (it is then
learnt from its label alone). 6 K bytes a target token. The base's own words are no samples that were learnt, and
``anchor_kl.py`` is for those.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.learning import anchor, predictions
from lifelong.learning.base import Learner, Logits
from lifelong.learning.predictions import Predictions
from lifelong.learning.reading import is_reading
from lifelong.learning.recipe import Method, State


class DarkReplay(Method):
    """
    Args:
        alpha: 0 is plain replay. beta: 0 is DER, without labels.
        when: what is said of a sample is kept, as soon as it is ``learnt`` or when it is first ``replayed``.
    """

    def __init__(
        self,
        *,
        alpha: float,
        beta: float = 1.0,
        when: Literal["learnt", "replayed"] = "learnt",
        num_kept: int = 32,
        tokens_per_pass: int = 512,
    ) -> None:
        if min(alpha, beta) < 0:
            raise ValueError(f"alpha and beta must not be negative, got {alpha} and {beta}")
        self._alpha = alpha
        self._beta = beta
        self._when = when
        self._num_kept = num_kept
        self._tokens_per_pass = tokens_per_pass
        self._kept: dict[str, Predictions] = {}
        self._new: set[str] = set()

    def loss(self, learner: Learner, samples: Sequence[Sample], predicted: Logits, loss_S: Tensor) -> Tensor:
        num_S = torch.bincount(predicted.sample_N, minlength=len(samples)).tolist()
        for sample, num_targets in zip(samples, num_S, strict=True):
            # It was cut at another length then, or divided into other tokens.
            if sample.id in self._kept and len(self._kept[sample.id].ids_NK) != num_targets:
                del self._kept[sample.id]
        mixed_S = mix(self._kept, samples, predicted, loss_S, self._beta, self._alpha)
        if self._when == "replayed" and self._alpha:
            for index, sample in enumerate(samples):
                if sample.id in self._new or sample.id in self._kept:
                    continue
                if not anchor.is_anchor(sample) and not is_reading(sample):
                    mine_N = predicted.sample_N == index
                    self._kept[sample.id] = predictions.keep(
                        predicted.logits_NV[mine_N], predicted.targets_N[mine_N], self._num_kept
                    )
        return mixed_S

    def begin(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        self._new = {sample.id for sample in new}
        # Relearnt from its label alone: what was said of it before is out of date now.
        self.keep(self._kept.keys() - {sample.id for sample in new})

    def end(self, learner: Learner, new: Sequence[Sample], version: int) -> None:
        if self._when == "learnt" and self._alpha:
            self._kept |= predictions.keep_each(
                learner, new, num_kept=self._num_kept, tokens_per_pass=self._tokens_per_pass
            )

    def keep(self, sample_ids: Collection[str]) -> None:
        self._kept = {key: kept for key, kept in self._kept.items() if key in sample_ids}

    def state(self) -> State:
        return predictions.to_tensors(self._kept)

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._kept = predictions.from_tensors(state)


def mix(
    kept: Mapping[str, Predictions],
    samples: Sequence[Sample],
    predicted: Logits,
    loss_S: Tensor,
    of_loss: float,
    of_kl: float,
    temperature: float = 1.0,
) -> Tensor:
    """``of_loss`` · loss + ``of_kl`` · T² KL(kept ‖ model) where something is kept, the KL being the mean over a
    sample's target tokens, as its loss is; the loss alone elsewhere.

    Raises:
        ValueError: what is kept of a sample is of another number of target tokens.
    """
    known = [index for index, sample in enumerate(samples) if sample.id in kept]
    if not known:
        return loss_S
    is_known_S = torch.zeros(len(samples), dtype=torch.bool, device=loss_S.device)
    is_known_S[known] = True
    here_N = is_known_S[predicted.sample_N]
    sample_M = predicted.sample_N[here_N]
    num_S = torch.bincount(predicted.sample_N, minlength=len(samples))
    for index in known:
        num_kept = len(kept[samples[index].id].ids_NK)
        if num_kept != num_S[index]:
            raise ValueError(f"{samples[index].id}: {num_kept} tokens are kept, it has {int(num_S[index])}")
    together = predictions.join([kept[samples[index].id] for index in known])
    kl_M = predictions.divergence(together, predicted.logits_NV[here_N] / temperature, predicted.targets_N[here_N])
    kl_S = torch.zeros_like(loss_S).index_add(0, sample_M, kl_M.to(loss_S.dtype)) / num_S.clamp(min=1)
    return torch.where(is_known_S, of_loss * loss_S + of_kl * temperature**2 * kl_S, loss_S)
