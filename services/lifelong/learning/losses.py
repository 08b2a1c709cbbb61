"""Cross-entropy, with its sums and means written out.

A sample's loss is the *mean* over its target tokens, so a long answer does not count more than a short one. The loss
of a micro-batch is the mean over its samples weighted by ``Sample.weight``, so that a micro-batch of eight has the
mean gradient of its eight samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner, Logits, chunks


def sample_losses(predicted: Logits, num_samples: int) -> Tensor:
    """loss_S: for each sample -1/n Σ ln p(target), over its n target tokens. 0 for a sample that has none."""
    loss_N = F.cross_entropy(predicted.logits_NV, predicted.targets_N, reduction="none")
    zeros_S = torch.zeros(num_samples, dtype=loss_N.dtype, device=loss_N.device)
    sum_S = zeros_S.index_add(0, predicted.sample_N, loss_N)
    num_S = zeros_S.index_add(0, predicted.sample_N, torch.ones_like(loss_N))
    return sum_S / num_S.clamp(min=1)


@torch.no_grad()
def are_first_choices(predicted: Logits, num_samples: int) -> list[bool]:
    """For each sample whether each of its target tokens was the likeliest, so that greedy decoding says just that."""
    missed_N = (predicted.logits_NV.argmax(dim=-1) != predicted.targets_N).to(torch.int64)
    missed_S = torch.zeros(num_samples, dtype=torch.int64, device=missed_N.device)
    return [num == 0 for num in missed_S.index_add(0, predicted.sample_N, missed_N).tolist()]


def weights(samples: Sequence[Sample], device: torch.device) -> Tensor:
    """weight_S, as they are; whoever takes a mean divides by their sum over the whole micro-batch."""
    return torch.tensor([sample.weight for sample in samples], dtype=torch.float32, device=device)


@torch.no_grad()
def evaluate(learner: Learner, samples: Sequence[Sample], max_tokens: int) -> dict[str, float]:
    """Loss by sample id, in nats per token, without learning from them. Batches hold up to ``max_tokens``."""
    found: dict[str, float] = {}
    for chunk in chunks(learner, samples, max_tokens):
        loss_S = sample_losses(learner.logits(chunk), len(chunk))
        found.update(zip((sample.id for sample in chunk), loss_S.tolist(), strict=True))
    return found
