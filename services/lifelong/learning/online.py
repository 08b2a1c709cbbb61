"""One micro-batch, learnt until what should be known is known.

A fact that somebody corrected should be right in the next answer; one step does not teach it, a handful does. So the
steps on a micro-batch go on until every ``until_known`` sample is below the target loss, within bounds. The other
samples are examples of a task, from which one learns by their number: they get ``min_steps``. Where all of a step are
known already it is not taken, which spares its backward pass and its old samples: what would hardly move the weights
should cost hardly anything (selective backpropagation, https://arxiv.org/abs/1910.00762).

Those first steps are on ``step_samples`` at a time: more and smaller steps learn more from the same tokens, as long as
AdamW's second moment is made for it (https://arxiv.org/abs/2507.07101).

Every sample is scored before it is learnt (prequential evaluation, Dawid 1984): that is the first forward pass.

What keeps the old is a *recipe* (``lifelong.learning.recipe``), which is asked at each place of the micro-batch; an
empty one changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner, chunks
from lifelong.learning.losses import are_first_choices, evaluate, sample_losses, weights
from lifelong.learning.optimizers import Optimizer
from lifelong.learning.recipe import Recipe, take_gradients
from lifelong.learning.settings import LearningSettings


@dataclass(frozen=True)
class Lesson:
    """What one micro-batch did. Losses by sample id, in nats per token, of the new samples only."""

    before: dict[str, float]
    """Just before the first step on it."""
    after: dict[str, float]
    """Of those that were scored again."""
    num_steps: int
    num_tokens: int
    """That went forward and backward, prompts, replay and anchors included, padding not."""

    mixed_in: dict[str, float] = field(default_factory=dict)
    """Of each old sample when it was last seen, before the step that it was mixed into."""

    right: dict[str, bool] = field(default_factory=dict)
    """Whether each new sample was what greedy decoding would have said before the first step on it."""

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
    *,
    recipe: Recipe | None = None,
    version: int = 0,
    score: Sequence[Sample] | None = None,
    old: dict[str, float] | None = None,
) -> Lesson:
    """Steps on ``new`` and, mixed in, old samples.

    Args:
        mix_in: what goes into a step beside the new samples, by the number of the step. Other old samples in each step
            protect more of the past at the same cost.
        on_step: called with the number of steps done before each step, for whoever has something to do meanwhile.
        version: that this micro-batch leads to.
        score: of ``new``, those whose loss after the last step is wanted; without, all. Where the last thing was to see
            that all is known, those that should be are scored anyway.
        old: is given the loss of each old sample as it is seen, for ``mix_in`` to look at.
    """
    assert new
    recipe = recipe or Recipe()
    before: dict[str, float] = {}
    latest: dict[str, float] = {}  # of each new sample at the present weights, where that is known
    old = {} if old is None else old
    right: dict[str, bool] = {}
    to_know = [sample for sample in new if sample.until_known]
    parts = _parts(new, settings.step_samples) * settings.min_steps
    num_rounds = num_steps = num_tokens = 0
    recipe.begin(learner, new, version)

    def is_known(samples: Sequence[Sample]) -> bool:
        return all(latest.get(sample.id, float("inf")) < settings.target_loss_nats for sample in samples)

    def is_needless(step_on: Sequence[Sample]) -> bool:
        if num_rounds >= len(parts):
            return is_known(to_know)
        return settings.skip_known and is_known(step_on) and not any(map(_is_judged, step_on))

    def backward(step_on: Sequence[Sample], besides: Sequence[Sample], sum_of_weights: float) -> bool:
        """Adds these samples' part of the gradient of the weighted mean, and their cross-entropies to ``latest`` and to
        ``old``. False, with nothing of use added to the gradient: a step on ``step_on`` is needless."""
        is_new = {sample.id for sample in step_on}
        of_old: dict[str, float] = {}
        # A small model takes about as long for a second pass as for all the samples of a step.
        for chunk in chunks(learner, [*step_on, *besides], settings.tokens_per_pass):
            predicted = learner.logits(chunk)
            loss_S = sample_losses(predicted, len(chunk))
            for sample, loss in zip(chunk, loss_S.tolist(), strict=True):
                (latest if sample.id in is_new else of_old)[sample.id] = loss
            if any(sample.id in is_new and sample.id not in before for sample in chunk):
                firsts = zip(chunk, are_first_choices(predicted, len(chunk)), strict=True)
                right.update((sample.id, is_first) for sample, is_first in firsts if sample.id in is_new)
            if step_on and is_needless(step_on):  # never before the last of them; the backward pass is spared
                take_gradients(learner)
                return False
            loss_S = recipe.loss(learner, chunk, predicted, loss_S)
            _backward((loss_S * weights(chunk, loss_S.device)).sum() / sum_of_weights)
        old.update(of_old)
        return True

    for num_rounds in range(len(parts) + max(0, settings.max_steps - settings.min_steps)):
        active = parts[num_rounds] if num_rounds < len(parts) else to_know
        if active is to_know and is_known(to_know):
            break
        on_step(num_steps)
        mixed_in = mix_in(num_steps)
        # Gradients that are combined are each a mean of their own.
        besides = mixed_in if recipe.combine is None else []
        is_needed = backward(active, besides, sum(sample.weight for sample in [*active, *besides]))
        before = latest | before
        if not is_needed:
            if num_rounds < len(parts):
                continue
            break
        if recipe.combine is not None and mixed_in:
            of_new = take_gradients(learner)
            backward([], mixed_in, sum(sample.weight for sample in mixed_in))
            for name, gradient in recipe.combine(of_new, take_gradients(learner)).items():
                learner.parameters[name].grad = gradient
        penalty = recipe.penalty(learner)
        if penalty is not None:
            _backward(penalty)
        recipe.before_update(learner)
        step_tokens = sum(map(learner.num_tokens, [*active, *mixed_in]))
        optimizer.step(step_tokens)
        recipe.after_update(learner, step_tokens)
        num_steps, num_tokens = num_steps + 1, num_tokens + step_tokens
        latest.clear()

    unknown = [sample for sample in (new if score is None else score) if sample.id not in latest]
    latest |= evaluate(learner, unknown, settings.tokens_per_pass)
    recipe.end(learner, new, version)
    after = {sample.id: latest[sample.id] for sample in new if sample.id in latest}
    return Lesson(before, after, num_steps, num_tokens, old, right)


def _parts(new: Sequence[Sample], num_samples: int) -> list[list[Sample]]:
    """As equal as they can be, each of at most ``num_samples``; 0: all in one."""
    num_parts = -(-len(new) // num_samples) if num_samples else 1
    return [list(new[len(new) * at // num_parts : len(new) * (at + 1) // num_parts]) for at in range(num_parts)]


def _is_judged(sample: Sample) -> bool:
    """Its loss does not say whether anything can be learnt of it."""
    return sample.rejected is not None or sample.rating is not None


def _backward(loss: Tensor) -> None:
    torch.autograd.backward(loss)
