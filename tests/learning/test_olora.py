"""Blocks of an adapter that learn apart and orthogonally."""

from __future__ import annotations

import pytest
import torch
from tests.learning.toy import ToyLearner, copy_of, same, toy_sample

from lifelong.learning.olora import OLora
from lifelong.learning.online import learn
from lifelong.learning.optimizers import SGD, AdamW
from lifelong.learning.recipe import Recipe
from lifelong.learning.settings import LearningSettings

SETTINGS = LearningSettings(optimizer="sgd", learning_rate=0.1, max_grad_norm=0)
SAMPLES = [toy_sample(1, "123"), toy_sample(2, "4")]


def nothing(step):
    return []


@pytest.mark.parametrize("optimizer", [SGD, AdamW])
def test_only_the_present_block_moves(optimizer):
    settings = LearningSettings(learning_rate=0.05, weight_decay=0.1, momentum=0.9)
    learner = ToyLearner()
    method, moving = OLora(learner.parameters, strength=0.5, num_blocks=2), optimizer(learner.parameters, settings)
    for block in (0, 1, 1):
        before = copy_of(learner)
        for version in range(2):
            learn(learner, moving, SAMPLES, nothing, settings, recipe=Recipe({"o": method}), version=version)
        for name, parameter in learner.parameters.items():
            change = (parameter.detach() - before[name]).abs()
            by_rank = change.sum(dim=1 if ".lora_A." in name else 0)
            assert by_rank[block] > 0
            assert by_rank[1 - block] == 0
        method.next_block()


def test_the_penalty_is_the_overlap_with_the_blocks_before():
    learner = ToyLearner()
    method = OLora(learner.parameters, strength=0.3, num_blocks=2)
    assert method.penalty(learner) is None
    method.next_block()
    penalty = method.penalty(learner)
    a = [p for name, p in learner.parameters.items() if ".lora_A." in name]
    assert penalty.item() == pytest.approx(0.3 * sum((p[0] @ p[1]).item() ** 2 for p in a), rel=1e-5)
    penalty.backward()
    for parameter in a:
        torch.testing.assert_close(parameter.grad[1], 0.6 * (parameter[0] @ parameter[1]) * parameter[0])
        assert parameter.grad[0].abs().sum() == 0


def test_a_strong_penalty_makes_the_block_orthogonal():
    settings = LearningSettings(optimizer="sgd", learning_rate=0.02, max_grad_norm=0)
    overlaps = []
    for strength in (0.0, 5.0):
        learner = ToyLearner()
        a = learner.parameters["layers.0.q.lora_A.weight"]
        with torch.no_grad():
            a[1] += a[0]
        old = a[0].detach().clone()
        method, optimizer = (
            OLora(learner.parameters, strength=strength, num_blocks=2),
            SGD(learner.parameters, settings),
        )
        method.next_block()
        for version in range(60):
            learn(learner, optimizer, SAMPLES, nothing, settings, recipe=Recipe({"o": method}), version=version)
        assert torch.equal(a[0], old)
        overlaps.append(abs((a[0] @ a[1]).item()))
    assert overlaps[1] < 0.05 * overlaps[0]


def test_blocks_take_turns_by_versions_and_the_last_one_stays():
    learner = ToyLearner()
    method = OLora(learner.parameters, strength=1.0, num_blocks=2, versions_per_block=2)
    found = []
    for version in range(6):
        method.end(learner, SAMPLES, version)
        found.append(method.state()["block"].item())
    assert found == [0, 1, 1, 1, 1, 1]


def test_blocks_are_checked():
    learner = ToyLearner()
    with pytest.raises(ValueError, match="rank 2 has 1 to 2 blocks, not 3"):
        OLora(learner.parameters, strength=1.0, num_blocks=3)
    with pytest.raises(ValueError, match="only an adapter"):
        OLora({"w": next(iter(learner.parameters.values()))}, strength=1.0, num_blocks=1)
    with pytest.raises(ValueError, match="block 5 of 2"):
        OLora(learner.parameters, strength=1.0, num_blocks=2).load(
            {"block": torch.tensor([5]), "num_versions": torch.tensor([0])}
        )


def test_nothing_moves_between_micro_batches_of_the_same_state():
    """Freezing leaves no trace: equal states, equal bits."""
    ends = []
    for _ in range(2):
        learner = ToyLearner()
        method, optimizer = OLora(learner.parameters, strength=0.5, num_blocks=2), SGD(learner.parameters, SETTINGS)
        learn(learner, optimizer, SAMPLES, nothing, SETTINGS, recipe=Recipe({"o": method}), version=1)
        ends.append(copy_of(learner))
    assert same(*ends)
