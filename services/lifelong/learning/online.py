"""One micro-batch, learnt until what should be known is known.

A fact that somebody corrected should be right in the next answer; one step does not teach it, a handful does. So the
steps on a micro-batch go on until every ``until_known`` sample is below the target loss, within bounds. The other
samples are examples of a task, from which one learns by their number: they get ``min_steps``.

Every sample is scored before it is learnt (prequential evaluation, Dawid 1984): that is the first forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner, chunks
from lifelong.learning.losses import evaluate, sample_losses, weights
from lifelong.learning.optimizers import Optimizer
from lifelong.learning.settings import LearningSettings


@dataclass(frozen=True)
class Lesson:
    """What one micro-batch did. Losses by sample id, in nats per token, of the new samples only."""

    before: dict[str, float]
    after: dict[str, float]
    num_steps: int
    num_tokens: int
    """That went forward and backward, prompts, replay and anchors included, padding not."""

    @property
    def last_loss(self) -> float:
        return sum(self.after.values()) / max(1, len(self.after))


def learn(
    learner: Learner,
    optimizer: Optimizer,
    new: Sequence[Sample],
    mix_in: Callable[[int], Sequence[Sample]],
    settings: LearningSettings,
    on_step: Callable[[int], None] = lambda step: None,
) -> Lesson:
    """Steps on ``new`` and, mixed in, replay and anchors.

    Args:
        mix_in: what goes into a step beside the new samples, by the number of the step. Other old samples in each step
            protect more of the past at the same cost.
        on_step: called with the number of steps done before each step, for whoever has something to do meanwhile.
    """
    assert new
    before: dict[str, float] = {}
    latest: dict[str, float] = {}  # of each new sample at the present weights, where that is known
    to_know = [sample for sample in new if sample.until_known]
    num_steps = num_tokens = 0

    def is_known() -> bool:
        return num_steps >= settings.min_steps and all(
            latest.get(sample.id, float("inf")) < settings.target_loss_nats for sample in to_know
        )

    while num_steps < settings.max_steps:
        active = list(new) if num_steps < settings.min_steps else to_know
        if not active:
            break
        on_step(num_steps)
        mixed_in = mix_in(num_steps)
        sum_of_weights = sum(sample.weight for sample in [*active, *mixed_in])
        for chunk in chunks(learner, active, settings.tokens_per_pass):
            loss_S = sample_losses(learner.logits(chunk), len(chunk))
            latest.update(_by_id(chunk, loss_S))
            if is_known():  # never before the last chunk; its backward pass is spared
                break
            _backward(loss_S, chunk, sum_of_weights)
        before = before or dict(latest)
        if is_known():
            _drop_gradients(learner)
            break
        for chunk in chunks(learner, mixed_in, settings.tokens_per_pass):
            _backward(sample_losses(learner.logits(chunk), len(chunk)), chunk, sum_of_weights)
        step_tokens = sum(map(learner.num_tokens, [*active, *mixed_in]))
        optimizer.step(step_tokens)
        num_steps, num_tokens = num_steps + 1, num_tokens + step_tokens
        latest.clear()

    unknown = [sample for sample in new if sample.id not in latest]
    after = latest | evaluate(learner, unknown, settings.tokens_per_pass)
    return Lesson(before, {sample.id: after[sample.id] for sample in new}, num_steps, num_tokens)


def _backward(loss_S: Tensor, samples: Sequence[Sample], sum_of_weights: float) -> None:
    """Adds these samples' part of the gradient of the weighted mean over the whole micro-batch."""
    ((loss_S * weights(samples, loss_S.device)).sum() / sum_of_weights).backward()  # type: ignore[no-untyped-call]


def _drop_gradients(learner: Learner) -> None:
    for parameter in learner.parameters.values():
        parameter.grad = None


def _by_id(samples: Sequence[Sample], loss_S: Tensor) -> dict[str, float]:
    return dict(zip((sample.id for sample in samples), loss_S.tolist(), strict=True))
