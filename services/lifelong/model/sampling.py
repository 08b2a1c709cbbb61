"""How the next token is chosen: per request, and not changed by what else is in the batch.

Sampling is the argmax of log-probability plus Gumbel noise (Gumbel-max), and the noise is a function of the request's
seed and the position alone. So greedy and sampled requests share one batch, and a seed gives the same answer again
(as far as the logits are the same: in bfloat16 they depend a little on the size of the batch).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import torch
from msgspec import Meta


class SamplingParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_tokens: Annotated[int, Meta(ge=1)] = 128
    """Of the answer; the token that ends it counts."""
    temperature: Annotated[float, Meta(ge=0)] = 0.0
    """0: always the most likely token."""
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Choose among the most likely tokens that have this much probability together."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these."""
    seed: int | None = None
    """``None``: another one each time."""


def choose(logits_V: torch.Tensor, params: SamplingParams, position: int) -> int:
    """The next token id. ``logits_V`` is float32; ``position`` counts the tokens before it, prompt included."""
    if params.temperature == 0:
        return int(logits_V.argmax())
    assert params.seed is not None, "a seed is drawn before the request is admitted"
    logprobs_V = torch.log_softmax(logits_V.cpu() / params.temperature, dim=-1)
    if params.top_p < 1:
        logprobs_V = _nucleus(logprobs_V, params.top_p)
    generator = torch.Generator().manual_seed(_mix(params.seed, position))
    # Exponential noise in the log is Gumbel noise with the sign turned.
    noise_V = torch.empty_like(logprobs_V).exponential_(generator=generator).log_()
    return int((logprobs_V - noise_V).argmax())


def _nucleus(logprobs_V: torch.Tensor, top_p: float) -> torch.Tensor:
    """Without the tokens that follow once the more likely ones have ``top_p`` (arXiv 1904.09751); one always stays."""
    ordered_V, index_V = logprobs_V.sort(descending=True, stable=True)
    before_V = ordered_V.exp().cumsum(-1) - ordered_V.exp()
    return logprobs_V.index_fill(0, index_V[before_V >= top_p], float("-inf"))


def _mix(seed: int, position: int) -> int:
    """SplitMix64: seeds and positions that are near each other give unrelated streams."""
    mask = 2**64 - 1
    state = (seed * 0x9E3779B97F4A7C15 + position + 1) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ state >> 31) * 0x94D049BB133111EB & mask
    return state ^ state >> 29
