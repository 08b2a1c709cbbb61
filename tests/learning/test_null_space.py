"""The adapter learns where the base's own words leave room."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.learning.toy import FEATURES, ToyLearner, copy_of, toy_anchor, toy_sample

from lifelong.learning.null_space import NullSpace, used_directions
from lifelong.learning.online import learn
from lifelong.learning.optimizers import SGD, AdamW
from lifelong.learning.recipe import Recipe
from lifelong.learning.settings import LearningSettings

WORDS = [toy_anchor(number) for number in range(900, 903)]


@pytest.mark.parametrize(("energy", "num_used"), [(0.45, 1), (0.4, 1), (0.39, 2), (0.11, 2), (0.09, 3), (1.0, 0)])
def test_as_few_directions_as_leave_no_more_than_that(energy, num_used):
    # Six tenths of the rows along the first axis, three along the second: how long they are makes no difference.
    axes = [0] * 6 + [1] * 3 + [2]
    inputs = torch.stack([torch.eye(5)[axis] * (index + 1) for index, axis in enumerate(axes)])
    used = used_directions(inputs, energy)
    assert used.shape == (5, num_used)
    assert torch.allclose(used.abs(), torch.eye(5)[:, :num_used], atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 12), (9, 12)])
def test_they_are_the_first_singular_vectors(shape):
    inputs = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 0.1, 12)
    used = used_directions(inputs, 0.2)
    rows = (inputs / inputs.norm(dim=1, keepdim=True)).numpy()
    _, values, directions = np.linalg.svd(rows, full_matrices=False)
    left = 1 - np.cumsum(values**2) / np.sum(values**2)
    first = directions[: used.shape[1]]
    assert left[used.shape[1] - 1] <= 0.2 < left[used.shape[1] - 2]
    assert np.allclose(used @ used.T, first.T @ first, atol=1e-5)


@pytest.mark.parametrize("optimizer", [SGD, AdamW])
def test_what_is_learnt_changes_nothing_at_the_words_that_it_is_clear_of(optimizer):
    settings = LearningSettings(learning_rate=0.05, momentum=0.9, min_steps=4, max_grad_norm=0)
    changes = {}
    for is_clear in (True, False):
        learner = ToyLearner()
        inputs = learner.layer_inputs(WORDS[:1])  # of three tokens at most: there is room for them in six dimensions
        assert inputs["layers.0.q.lora_A.weight"].shape[0] < FEATURES
        methods = {"null space": NullSpace(learner.parameters, inputs, energy=1e-6)} if is_clear else {}
        start = copy_of(learner)
        said, asked = learner.logits(WORDS[:1]).logits_NV, learner.logits([toy_sample(1)]).logits_NV
        moving = optimizer(learner.parameters, settings)
        for version in range(3):
            learn(learner, moving, [toy_sample(1)], lambda _: [], settings, recipe=Recipe(methods), version=version)
        assert all(not torch.equal(start[name], parameter) for name, parameter in learner.parameters.items())
        assert (learner.logits([toy_sample(1)]).logits_NV - asked).abs().max() > 0.1
        changes[is_clear] = (learner.logits(WORDS[:1]).logits_NV - said).abs().max().item()
    assert changes[True] < 1e-4
    assert changes[False] > 0.1


def test_it_begins_as_long_as_it_was_and_leaves_b_alone():
    learner = ToyLearner()
    before = copy_of(learner)
    NullSpace(learner.parameters, learner.layer_inputs(WORDS), energy=0.3)
    for name, parameter in learner.parameters.items():
        if ".lora_A." in name:
            assert not torch.allclose(parameter, before[name])
            assert torch.allclose(parameter.norm(dim=1), before[name].norm(dim=1))
        else:
            assert torch.equal(parameter, before[name])


def test_a_line_that_began_elsewhere_keeps_what_it_knows():
    learner = ToyLearner()
    method = NullSpace(learner.parameters, learner.layer_inputs(WORDS[:1]), energy=1e-6)
    used = used_directions(learner.layer_inputs(WORDS[:1])["layers.0.q.lora_A.weight"], 1e-6)
    learner = ToyLearner(seed=1)  # as loaded from a version
    a = learner.parameters["layers.0.q.lora_A.weight"]
    before = (a @ used).detach()
    settings = LearningSettings(learning_rate=0.05)
    learn(
        learner,
        AdamW(learner.parameters, settings),
        [toy_sample(1)],
        lambda _: [],
        settings,
        recipe=Recipe({"": method}),
    )
    assert before.abs().max() > 0.1
    assert torch.allclose(a @ used, before, atol=1e-6)


@pytest.mark.parametrize("inputs", [{}, {"layers.0.q.lora_A.weight": torch.ones(1, FEATURES)}])
def test_without_words_the_error_names_the_setting(inputs):
    with pytest.raises(ValueError, match=r"recipe\.null_space"):
        NullSpace(ToyLearner().parameters, inputs, energy=0.1)
