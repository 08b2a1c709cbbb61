"""Each method does what it is for: after a second task, less of the first is lost than without it."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import msgspec
import pytest
from tests.learning.toy import ToyLearner, toy_sample

from lifelong.learning import predictions
from lifelong.learning.losses import evaluate
from lifelong.learning.online import learn
from lifelong.learning.optimizers import AdamW
from lifelong.learning.recipe_settings import PLAIN
from lifelong.learning.recipes import make_recipe, slow_weights
from lifelong.learning.settings import LearningSettings
from lifelong.learning.surprise import SurpriseReservoir

LEARNING = LearningSettings(learning_rate=0.05, beta2=0.999, skip_known=False)
FIRST = [toy_sample(number, str(number), task="first") for number in range(2)]
# Other questions, answered with other digits.
SECOND = [toy_sample(100 + number, str(5 + number), task="second") for number in range(2)]
NUM_VERSIONS = 40


class Outcome(NamedTuple):
    """In nats."""

    first: float
    """Loss on the first task right after it."""
    first_in_the_end: float
    second: float
    first_moved: float
    """KL from what was said of the first task right after it to what is said in the end, besides the true tokens."""


@cache
def after_two_tasks(replay: int = 0, **fields: object) -> Outcome:
    learner = ToyLearner()
    recipe = make_recipe(
        msgspec.structs.replace(PLAIN, **fields), learner.parameters, seed=0, reference_tokens=6, tokens_per_pass=100
    )
    optimizer, buffer = AdamW(learner.parameters, LEARNING), SurpriseReservoir(16, 0)
    slow = slow_weights(recipe)

    def loss(samples):
        if slow is None:
            return sum(evaluate(learner, samples, 1000).values()) / len(samples)
        with slow.swapped():
            return sum(evaluate(learner, samples, 1000).values()) / len(samples)

    losses = []
    for task in (FIRST, SECOND):
        for version in range(NUM_VERSIONS):
            lesson = learn(
                learner, optimizer, task,
                lambda step, version=version: buffer.draw(replay, version=version, step=step),
                LEARNING, recipe=recipe, version=version,
            )  # fmt: skip
            buffer.saw(lesson.before | lesson.mixed_in)
            if version == 0:
                for sample in task:
                    buffer.add(sample)
        losses.append(loss(FIRST))
        if task is FIRST:
            kept = predictions.keep_each(learner, FIRST, num_kept=9, tokens_per_pass=100)
    logits_NV, targets_N, _ = learner.logits(FIRST)
    then = predictions.join([kept[sample.id] for sample in FIRST])
    moved = predictions.divergence(then, logits_NV, targets_N).mean().item()
    return Outcome(losses[0], losses[1], loss(SECOND), moved)


def test_plain_fine_tuning_forgets():
    plain = after_two_tasks()
    assert plain.first < 0.1
    assert plain.second < 0.1
    assert plain.first_in_the_end > 5


@pytest.mark.parametrize(
    ("replay", "fields"),
    [
        (1, {}),
        (2, {"old_gradient": "project"}),
        (1, {"dark_alpha": 0.5}),
        (0, {"ewc_strength": 3.0}),
        (0, {"ewc_strength": 3.0, "ewc_centre": "mean", "ewc_decay": 1.0}),
        (0, {"ewc_strength": 3.0, "ewc_labels": "model"}),
        (0, {"base_kl_strength": 1.0}),
        (0, {"lwf_strength": 3.0, "lwf_every": NUM_VERSIONS}),
        (0, {"fading": 0.03}),
        (0, {"layer_periods": (4, 1)}),
        (0, {"ema_decay": 0.95}),
    ],
    ids=str,
)
def test_less_is_forgotten_and_the_new_is_learnt(replay, fields):
    plain, found = after_two_tasks(), after_two_tasks(replay, **fields)
    assert found.first_in_the_end < plain.first_in_the_end - 1
    assert found.second < 1


def test_more_old_samples_forget_less():
    assert after_two_tasks(2).first_in_the_end < after_two_tasks(1).first_in_the_end


def test_what_was_said_of_old_samples_is_still_said():
    """Which is more than their labels."""
    replayed, dark = after_two_tasks(1), after_two_tasks(1, dark_alpha=0.5)
    assert dark.first_moved < 0.6 * replayed.first_moved
