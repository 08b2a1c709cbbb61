"""The projection against its optimality conditions, and as a step that does not harm."""

from __future__ import annotations

import pytest
import torch
from tests.learning.toy import ToyLearner, same, toy_sample

from lifelong.learning.agem import project
from lifelong.learning.losses import evaluate
from lifelong.learning.online import learn
from lifelong.learning.optimizers import SGD
from lifelong.learning.recipe import Recipe
from lifelong.learning.settings import LearningSettings


def random(seed):
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(3, 4, generator=generator), "b": torch.randn(5, generator=generator)}


def flat(gradients):
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


def dot(left, right):
    return (flat(left) * flat(right)).sum().item()


def test_by_hand():
    found = project({"a": torch.tensor([1.0, 0.0])}, {"a": torch.tensor([-2.0, 2.0])})
    # g·r = -2, r·r = 8: g + r/4.
    torch.testing.assert_close(found["a"], torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_nearest_that_does_no_harm(seed):
    new, old = random(seed), random(100 + seed)
    found = project(new, old)
    if dot(new, old) >= 0:
        assert same(found, new)
        return
    # The conditions of Karush, Kuhn and Tucker: on the boundary, and moved along r only, towards it.
    assert abs(dot(found, old)) < 1e-5
    move = flat(found) - flat(new)
    along = (move @ flat(old)) / (flat(old) @ flat(old))
    assert along > 0
    torch.testing.assert_close(move, along * flat(old), rtol=1e-4, atol=1e-6)


def test_the_length_of_the_old_gradient_makes_no_difference():
    new, old = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([-1.0, -0.3])}
    torch.testing.assert_close(project(new, old)["a"], project(new, {"a": 1e4 * old["a"]})["a"])


def test_a_parameter_that_only_one_of_them_moves():
    new = {"a": torch.tensor([1.0]), "b": torch.tensor([3.0])}
    old = {"a": torch.tensor([-1.0]), "c": torch.tensor([2.0])}
    found = project(new, old)  # g·r = -1, r·r = 5
    assert {name: round(t.item(), 6) for name, t in sorted(found.items())} == {"a": 0.8, "b": 3.0, "c": 0.4}


def test_a_small_step_does_not_make_the_old_samples_less_likely():
    settings = LearningSettings(optimizer="sgd", learning_rate=1e-3, max_grad_norm=0)
    num_harmed = 0
    for number in range(12):
        new, old = [toy_sample(number)], [toy_sample(50 + number)]
        changes = []
        for combine in (None, project):
            learner = ToyLearner()
            before = evaluate(learner, old, 100)[old[0].id]
            mix_in = (lambda step, old=old: old) if combine else (lambda step: [])
            learn(
                learner, SGD(learner.parameters, settings), new, mix_in, settings,
                recipe=Recipe(combine=combine), version=1,
            )  # fmt: skip
            changes.append(evaluate(learner, old, 100)[old[0].id] - before)
        plain, projected = changes
        num_harmed += plain > 1e-4
        assert projected < 1e-4
    assert num_harmed >= 3
