"""How far the model has moved from its base on what comes in: the best single predictor of forgetting.

KL(base ‖ model) on the new task, "RL's Razor: why online reinforcement learning forgets less",
https://arxiv.org/abs/2509.04259. The base is the same model with its adapter switched off, so it costs one forward
pass more and no memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner, chunks
from lifelong.learning.distill import kl_divergence
from lifelong.learning.losses import sample_losses


@torch.no_grad()
def base_kl(learner: Learner, samples: Sequence[Sample]) -> float:
    """KL(base ‖ model) in nats, the mean over the target tokens of all samples together."""
    assert samples
    return float(kl_divergence(learner.logits(samples, base=True).logits_NV, learner.logits(samples).logits_NV))


@torch.no_grad()
def base_losses(learner: Learner, samples: Sequence[Sample], max_tokens: int) -> dict[str, float]:
    """Loss under the base by sample id, in nats per token. Batches hold up to ``max_tokens``."""
    found: dict[str, float] = {}
    for chunk in chunks(learner, samples, max_tokens):
        loss_S = sample_losses(learner.logits(chunk, base=True), len(chunk))
        found.update(zip((sample.id for sample in chunk), loss_S.tolist(), strict=True))
    return found
