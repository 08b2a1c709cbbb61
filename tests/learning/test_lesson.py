"""The micro-batch with a recipe: which hook is asked when."""

from __future__ import annotations

import pytest
import torch
from tests.learning.toy import ToyLearner, same, toy_sample

from lifelong.learning.losses import evaluate, sample_losses
from lifelong.learning.online import learn
from lifelong.learning.optimizers import SGD
from lifelong.learning.recipe import Method, Recipe
from lifelong.learning.settings import LearningSettings

SGD_SETTINGS = LearningSettings(optimizer="sgd", learning_rate=0.1, max_grad_norm=0)


class Witness(Method):
    def __init__(self) -> None:
        self.seen: list[object] = []

    def begin(self, learner, new, version):
        self.seen.append(("begin", len(new), version))

    def loss(self, learner, samples, predicted, loss_S):
        self.seen.append(("loss", [sample.id for sample in samples]))
        return loss_S

    def penalty(self, learner):
        self.seen.append("penalty")

    def before_update(self, learner):
        assert all(parameter.grad is not None for parameter in learner.parameters.values())
        self.seen.append("before")

    def after_update(self, learner, num_tokens):
        assert all(parameter.grad is None for parameter in learner.parameters.values())
        self.seen.append(("after", num_tokens))

    def end(self, learner, new, version):
        self.seen.append(("end", version))

    def keep(self, sample_ids):
        self.seen.append(("keep", sorted(sample_ids)))


def test_hooks_are_asked_in_order():
    learner, witness = ToyLearner(), Witness()
    new, old = [toy_sample(1, "12"), toy_sample(2, "345")], toy_sample(3, "6")
    recipe = Recipe({"witness": witness})
    lesson = learn(
        learner, SGD(learner.parameters, SGD_SETTINGS), new, lambda step: [old], SGD_SETTINGS, recipe=recipe, version=7
    )
    recipe.keep({"0-3-0"})
    assert witness.seen == [
        ("begin", 2, 7),
        ("loss", ["0-1-0", "0-2-0", "0-3-0"]),
        "penalty",
        "before",
        ("after", 4 + 5 + 3),
        ("end", 7),
        ("keep", ["0-3-0"]),
    ]
    assert lesson.mixed_in == pytest.approx(evaluate(ToyLearner(), [old], 100))


def test_losses_and_penalties_add_up():
    """Twice the loss, and λ/2 |θ|²: a step of θ - η (2 g + λ θ)."""

    class Twice(Method):
        def loss(self, learner, samples, predicted, loss_S):
            return 2 * loss_S

    class Shrink(Method):
        def penalty(self, learner):
            return sum((p**2).sum() for p in learner.parameters.values()) * 0.05

    learner, by_hand = ToyLearner(), ToyLearner()
    new, old = [toy_sample(1), toy_sample(2)], [toy_sample(3)]
    recipe = Recipe({"twice": Twice(), "shrink": Shrink(), "shrink more": Shrink()})
    learn(learner, SGD(learner.parameters, SGD_SETTINGS), new, lambda step: old, SGD_SETTINGS, recipe=recipe, version=1)
    sample_losses(by_hand.logits([*new, *old]), 3).mean().backward()
    for name, parameter in by_hand.parameters.items():
        expected = parameter - 0.1 * (2 * parameter.grad + 0.2 * parameter)
        torch.testing.assert_close(learner.parameters[name], expected)


def test_combined_gradients_are_two_means():
    seen = []

    def only_old(new, old):
        seen.append(new)
        return old

    learner = ToyLearner()
    new, old = [toy_sample(1), toy_sample(2)], [toy_sample(3), toy_sample(4), toy_sample(5)]
    learn(
        learner, SGD(learner.parameters, SGD_SETTINGS), new, lambda step: old, SGD_SETTINGS,
        recipe=Recipe(combine=only_old), version=1,
    )  # fmt: skip
    for samples, found in (
        (new, seen[0]),
        (old, {n: (p - learner.parameters[n]) / 0.1 for n, p in ToyLearner().parameters.items()}),
    ):
        by_hand = ToyLearner()
        sample_losses(by_hand.logits(samples), len(samples)).mean().backward()
        for name, parameter in by_hand.parameters.items():
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_a_recipe_keeps_the_states_of_its_methods_apart():
    class Keeps(Method):
        def __init__(self, value: float) -> None:
            self.value = torch.tensor([value])

        def state(self):
            return {"a/b": self.value}

        def load(self, state):
            self.value = state["a/b"]

    recipe = Recipe({"x": Keeps(1.0), "y": Keeps(2.0)})
    state = recipe.state()
    assert sorted(state) == ["x/a/b", "y/a/b"]
    other = Recipe({"x": Keeps(0.0), "y": Keeps(0.0)})
    other.load(state)
    assert same(other.state(), state)
    with pytest.raises(ValueError, match="not in this recipe: y"):
        Recipe({"x": Keeps(0.0)}).load(state)
    with pytest.raises(ValueError, match="keeps no state"):
        Recipe({"x": Method(), "y": Keeps(0.0)}).load(state)
