"""What a model said at the target tokens of a sample, small enough to keep beside the sample.

The K likeliest tokens with their log-probabilities, 6 K bytes a target token. All others are one event, "something
else". So the divergence from a kept prediction is the KL between two distributions over K + 1 events: at most the
whole KL, zero where the whole one is zero, and equal to it when K tokens are all there are.

Beside a cross-entropy the true token is left out, and both distributions are renormalised over the others, so that a
divergence from what was said once and the cross-entropy of what is true do not pull in different directions
(https://arxiv.org/abs/2605.29498). Where no token is the true one, none is.

Shapes: N target tokens, V vocabulary, K kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner, chunks

_AS_GOOD_AS_NOTHING = -1e9


class Predictions(NamedTuple):
    """Without the true tokens, if there are such, on the CPU."""

    ids_NK: Tensor
    """int32."""
    logprobs_NK: Tensor
    """float16, descending, each within 0.05 % of what it was."""


def keep(logits_NV: Tensor, targets_N: Tensor | None, num_kept: int) -> Predictions:
    """The ``num_kept`` likeliest tokens besides the true one, or as many as there are."""
    others_NV = _without(targets_N, logits_NV.detach().float())
    top = others_NV.topk(min(num_kept, logits_NV.shape[1] - (targets_N is not None)), dim=-1)
    logprobs_NK = top.values - others_NV.logsumexp(dim=-1, keepdim=True)
    # Below this lies less than exp(-60000).
    return Predictions(top.indices.int().cpu(), logprobs_NK.clamp(min=-6e4).half().cpu())


def divergence(kept: Predictions, logits_NV: Tensor, targets_N: Tensor | None) -> Tensor:
    """kl_N = KL(kept ‖ model) over the kept tokens and "something else", in nats, with a graph. ``targets_N``: as they
    were given to ``keep``."""
    kept_log_NK = kept.logprobs_NK.to(logits_NV.device, torch.float32)
    kept_log_NK = kept_log_NK - kept_log_NK.logsumexp(dim=-1, keepdim=True).clamp(min=0)  # float16 may sum to above 1
    ids_NK = kept.ids_NK.to(logits_NV.device, torch.int64)
    # "Something else" is one more token, as likely together as all that are neither kept nor true.
    rest_NV = _without(targets_N, logits_NV.scatter(1, ids_NK, _AS_GOOD_AS_NOTHING))
    events_NE = torch.cat([logits_NV.gather(1, ids_NK), rest_NV.logsumexp(dim=-1, keepdim=True)], dim=1).float()
    log_q_NE = F.log_softmax(events_NE, dim=-1)
    p_NK = kept_log_NK.exp()
    p_rest_N1 = (1 - p_NK.sum(dim=-1, keepdim=True)).clamp(min=0)
    if kept.ids_NK.shape[1] == logits_NV.shape[1] - (targets_N is not None):
        p_rest_N1 = torch.zeros_like(p_rest_N1)  # nothing else: what is left is rounding
    p_NE = torch.cat([p_NK, p_rest_N1], dim=1)
    p_log_p_NE: Tensor = torch.special.xlogy(p_NE, p_NE)
    return (p_log_p_NE - p_NE * log_q_NE).sum(dim=-1)


def _without(targets_N: Tensor | None, logits_NV: Tensor) -> Tensor:
    return logits_NV if targets_N is None else logits_NV.scatter(1, targets_N[:, None], _AS_GOOD_AS_NOTHING)


@torch.no_grad()
def keep_each(
    learner: Learner,
    samples: Sequence[Sample],
    *,
    num_kept: int,
    tokens_per_pass: int,
    base: bool = False,
    temperature: float = 1.0,
    with_true: bool = False,
) -> dict[str, Predictions]:
    """Of the learner as it is, or of its ``base``, by sample id; softened by the temperature. ``with_true``: the true
    token is one like others."""
    found: dict[str, Predictions] = {}
    for chunk in chunks(learner, samples, tokens_per_pass):
        logits_NV, targets_N, sample_N = learner.logits(chunk, base=base)
        for index, sample in enumerate(chunk):
            mine_N = sample_N == index
            besides_N = None if with_true else targets_N[mine_N]
            found[sample.id] = keep(logits_NV[mine_N].float() / temperature, besides_N, num_kept)
    return found


def join(kept: Sequence[Predictions]) -> Predictions:
    return Predictions(torch.cat([k.ids_NK for k in kept]), torch.cat([k.logprobs_NK for k in kept]))


def to_tensors(kept: Mapping[str, Predictions]) -> dict[str, Tensor]:
    """A flat dictionary, as states are."""
    return {f"ids/{key}": k.ids_NK.clone() for key, k in kept.items()} | {
        f"logprobs/{key}": k.logprobs_NK.clone() for key, k in kept.items()
    }


def from_tensors(state: Mapping[str, Tensor]) -> dict[str, Predictions]:
    """Raises ValueError: not what ``to_tensors`` makes."""
    keys = sorted(name.removeprefix("ids/") for name in state if name.startswith("ids/"))
    if {f"{kind}/{key}" for kind in ("ids", "logprobs") for key in keys} != state.keys():
        raise ValueError(f"not kept predictions: {sorted(state)[:3]} …")
    kept = {key: Predictions(state[f"ids/{key}"].clone(), state[f"logprobs/{key}"].clone()) for key in keys}
    for key, k in kept.items():
        if k.ids_NK.dtype != torch.int32 or k.logprobs_NK.dtype != torch.float16:
            raise ValueError(f"{key}: predictions are int32 and float16, not {k.ids_NK.dtype}, {k.logprobs_NK.dtype}")
        if k.ids_NK.dim() != 2 or k.ids_NK.shape != k.logprobs_NK.shape:
            raise ValueError(f"{key}: shapes {tuple(k.ids_NK.shape)} and {tuple(k.logprobs_NK.shape)}")
    return kept
