"""Groups of other frequencies against steps taken by hand."""

from __future__ import annotations

import pytest
import torch
from tests.learning.toy import ToyLearner, toy_sample

from lifelong.learning.losses import sample_losses
from lifelong.learning.multi_frequency import MultiFrequency, by_layer
from lifelong.learning.online import learn
from lifelong.learning.optimizers import SGD
from lifelong.learning.recipe import Recipe
from lifelong.learning.settings import LearningSettings

SETTINGS = LearningSettings(optimizer="sgd", learning_rate=0.1, max_grad_norm=0)
SAMPLES = [toy_sample(1, "123"), toy_sample(2, "4")]


def nothing(step):
    return []


def test_a_group_of_period_two_moves_along_the_mean_of_two_gradients():
    learner, by_hand = ToyLearner(), ToyLearner()
    periods = {name: 2 if ".0." in name else 1 for name in learner.parameters}
    method, optimizer = MultiFrequency(learner.parameters, periods=periods), SGD(learner.parameters, SETTINGS)
    collected = {name: torch.zeros_like(p) for name, p in by_hand.parameters.items()}
    for step in range(4):
        sample = SAMPLES[step % 2]
        learn(learner, optimizer, [sample], nothing, SETTINGS, recipe=Recipe({"m": method}), version=step)
        sample_losses(by_hand.logits([sample]), 1).sum().backward()
        with torch.no_grad():
            for name, parameter in by_hand.parameters.items():
                collected[name] += parameter.grad / periods[name]
                parameter.grad = None
                if (step + 1) % periods[name] == 0:
                    parameter -= 0.1 * collected[name]
                    collected[name].zero_()
        for name, parameter in by_hand.parameters.items():
            torch.testing.assert_close(learner.parameters[name], parameter)


def test_the_lowest_layers_move_most_seldom(new_learner):
    names = list(new_learner().parameters)
    found = by_layer(names, (4, 1))
    layers = sorted({int(name.split(".layers.")[1].split(".")[0]) for name in names})
    assert len(layers) > 1
    for name in names:
        layer = int(name.split(".layers.")[1].split(".")[0])
        assert found[name] == (4 if layers.index(layer) < (len(layers) + 1) // 2 else 1)
    assert by_layer(["embedding"], (4, 2, 1)) == {"embedding": 1}
    with pytest.raises(ValueError, match="period"):
        by_layer(names, ())


def test_periods_are_checked():
    learner = ToyLearner()
    with pytest.raises(ValueError, match="at least 1"):
        MultiFrequency(learner.parameters, periods=dict.fromkeys(learner.parameters, 0))
    with pytest.raises(ValueError, match="other parameters"):
        MultiFrequency(learner.parameters, periods={})
