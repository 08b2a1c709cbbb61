"""One round of distillation: L = α CE + (1-α) T² KL on samples of the stream (arXiv 1503.02531)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.distiller.config import DistillerSettings
from lifelong.learning.base import Learner, chunks
from lifelong.learning.distill import DistillLoss, distill_loss
from lifelong.learning.optimizers import Optimizer


class Scores(NamedTuple):
    """Means over the target tokens of some samples."""

    ce: float
    """Nats per token."""
    kl: float
    """Nats per token, of the softened distributions."""
    agreement: float
    """Share of tokens on which student and teacher have the same first choice."""

    def loss(self, settings: DistillerSettings) -> float:
        return settings.alpha * self.ce + (1 - settings.alpha) * settings.temperature**2 * self.kl


@torch.no_grad()
def score(teacher: Learner, student: Learner, samples: Sequence[Sample], settings: DistillerSettings) -> Scores:
    """How far the student is from teacher and data on these samples, which must not be empty."""
    num_tokens, sums = 0, [0.0, 0.0, 0.0]
    for chunk in chunks(student, samples, settings.tokens_per_pass):
        theirs, ours = teacher.logits(chunk), student.logits(chunk)
        loss = _loss(ours.logits_NV, theirs.logits_NV, ours.targets_N, settings)
        same = (ours.logits_NV.argmax(-1) == theirs.logits_NV.argmax(-1)).float().mean()
        for index, value in enumerate((loss.ce, loss.kl, same)):
            sums[index] += value.item() * len(ours.targets_N)
        num_tokens += len(ours.targets_N)
    assert num_tokens, "samples without a target"
    return Scores(*(value / num_tokens for value in sums))


def distil(
    teacher: Learner,
    student: Learner,
    optimizer: Optimizer,
    draw: Callable[[int], Sequence[Sample]],
    settings: DistillerSettings,
    on_step: Callable[[int], bool],
) -> int | None:
    """Takes ``settings.steps_per_round`` steps; the number of tokens they had, or ``None`` if it was ended early.

    Args:
        draw: the micro-batch of a step, by its number in the round.
        on_step: called before each step; false ends the round early (the process was told to stop).
    """
    num_tokens = 0
    for step in range(settings.steps_per_round):
        if not on_step(step):
            return None
        batch = draw(step)
        targets = sum(map(student.num_targets, batch))
        for chunk in chunks(student, batch, settings.tokens_per_pass):
            with torch.no_grad():
                theirs = teacher.logits(chunk)
            ours = student.logits(chunk)
            # Each pass has its part of the mean over all target tokens of the micro-batch.
            loss = _loss(ours.logits_NV, theirs.logits_NV, ours.targets_N, settings).total
            torch.autograd.backward(loss * (len(ours.targets_N) / targets))
        step_tokens = sum(map(student.num_tokens, batch))
        optimizer.step(step_tokens)
        num_tokens += step_tokens
    return num_tokens


def _loss(student_NV: Tensor, teacher_NV: Tensor, targets_N: Tensor, s: DistillerSettings) -> DistillLoss:
    return distill_loss(
        student_NV, teacher_NV, targets_N, alpha=s.alpha, temperature=s.temperature, direction=s.direction
    )
