"""Fisher information and penalty against closed forms and brute force."""

from __future__ import annotations

import pytest
import torch
from tests.learning.toy import VOCABULARY, ToyLearner, copy_of, same, toy_sample
from torch.nn import functional as F

from lifelong.learning.ewc import Ewc, fisher
from lifelong.learning.online import learn
from lifelong.learning.optimizers import SGD
from lifelong.learning.recipe import Recipe
from lifelong.learning.settings import LearningSettings

SAMPLES = [toy_sample(1, "123"), toy_sample(2, "4"), toy_sample(3, "55")]


def shift(learner, by, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner.parameters.values():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator).to(parameter))


def gradients_of_b(learner, sample, targets):
    """∂/∂B of the mean cross-entropy: 1/N Σ (p - e_target) (A x)ᵀ."""
    a_RD = learner.parameters["layers.0.q.lora_A.weight"].detach()
    p_NV = learner.logits([sample]).logits_NV.detach().softmax(-1)
    total = torch.zeros(VOCABULARY, len(a_RD), dtype=p_NV.dtype)
    for at, target in enumerate(targets):
        e_V = F.one_hot(torch.tensor(target), VOCABULARY)
        total += torch.outer(p_NV[at] - e_V, a_RD @ learner.features(sample, at)) / len(targets)
    return total


def test_fisher_is_the_mean_of_the_squares_of_each_samples_gradient():
    learner = ToyLearner(dtype=torch.float64)
    each = [gradients_of_b(learner, sample, list(map(int, sample.messages[-1].content))) for sample in SAMPLES]
    found = fisher(learner, SAMPLES)["layers.0.q.lora_B.weight"]
    torch.testing.assert_close(found, torch.stack([g**2 for g in each]).mean(0))
    square_of_mean = torch.stack(each).mean(0) ** 2
    assert (found > 1.5 * square_of_mean).any()
    assert all(parameter.grad is None for parameter in learner.parameters.values())


def test_with_labels_of_the_model_it_is_the_expectation_under_the_model():
    learner, sample = ToyLearner(dtype=torch.float64), toy_sample(1, "3")
    p_V = learner.logits([sample]).logits_NV[0].softmax(-1).tolist()
    exact = sum(p * gradients_of_b(learner, sample, [token]) ** 2 for token, p in enumerate(p_V))
    number = 2000
    drawn = sum(fisher(learner, [sample], "model", key)["layers.0.q.lora_B.weight"] for key in range(number)) / number
    torch.testing.assert_close(drawn, exact, rtol=0.25, atol=0.02 * exact.max().item())
    again = fisher(learner, [sample], "model", 5)
    assert same(again, fisher(learner, [sample], "model", 5))


def test_the_gradient_of_the_penalty_is_lambda_f_times_the_distance():
    learner = ToyLearner()
    ewc = Ewc(learner.parameters, strength=3.0)
    anchor, f = copy_of(learner), fisher(learner, SAMPLES)
    ewc.consolidate(learner, f)
    shift(learner, 0.5)
    ewc.penalty(learner).backward()
    norm = sum((t**2).sum() for t in f.values()) ** 0.5
    for name, parameter in learner.parameters.items():
        torch.testing.assert_close(parameter.grad, 3.0 * f[name] / norm * (parameter.detach() - anchor[name]))


def test_it_is_not_zero_once_something_moved_and_zero_before():
    learner = ToyLearner()
    ewc = Ewc(learner.parameters, strength=100.0, every=1)
    assert ewc.penalty(learner).item() == 0
    ewc.end(learner, SAMPLES, 1)
    assert ewc.penalty(learner).item() == 0
    shift(learner, 0.1)
    assert ewc.penalty(learner).item() > 0.01


def test_the_optimum_of_two_quadratics_is_their_weighted_mean():
    """min ½ h (θ - b)² + λ/2 F (θ - θ*)² is at (h b + λ F θ*) / (h + λ F)."""
    learner = ToyLearner(dtype=torch.float64)
    ewc = Ewc(learner.parameters, strength=2.0, normalise=False)
    anchor = copy_of(learner)
    f = {name: torch.rand(p.shape, dtype=p.dtype) for name, p in anchor.items()}
    ewc.consolidate(learner, f)
    goal, h = {name: p + 1 for name, p in anchor.items()}, 0.7
    for _ in range(300):
        new = sum((h / 2 * (p - goal[name]) ** 2).sum() for name, p in learner.parameters.items())
        (new + ewc.penalty(learner)).backward()
        with torch.no_grad():
            for parameter in learner.parameters.values():
                parameter -= 0.3 * parameter.grad
                parameter.grad = None
    for name, parameter in learner.parameters.items():
        torch.testing.assert_close(
            parameter.detach(), (h * goal[name] + 2 * f[name] * anchor[name]) / (h + 2 * f[name])
        )


def test_around_the_mean_it_is_the_sum_of_a_penalty_for_each_task():
    """Kirkpatrick's form, kept in the space of one."""
    learner = ToyLearner(dtype=torch.float64)
    ewc = Ewc(learner.parameters, strength=5.0, decay=1.0, centre="mean", normalise=False)
    terms = []
    for task in range(3):
        shift(learner, 0.3, seed=task)
        f = fisher(learner, [SAMPLES[task]])
        ewc.consolidate(learner, f)
        terms.append((f, copy_of(learner)))
    shift(learner, 0.3, seed=9)
    ewc.penalty(learner).backward()
    for name, parameter in learner.parameters.items():
        by_hand = sum(5.0 * f[name] * (parameter.detach() - anchor[name]) for f, anchor in terms)
        torch.testing.assert_close(parameter.grad, by_hand)


def test_online_the_past_fades_and_the_anchor_is_the_newest():
    learner = ToyLearner()
    ewc = Ewc(learner.parameters, strength=1.0, decay=0.9)
    first, second = fisher(learner, SAMPLES[:1]), fisher(learner, SAMPLES[1:])
    ewc.consolidate(learner, {name: 1000 * f for name, f in first.items()})
    shift(learner, 0.3)
    ewc.consolidate(learner, second)
    norms = [sum((t**2).sum() for t in f.values()) ** 0.5 for f in (first, second)]
    state = ewc.state()
    for name, parameter in learner.parameters.items():
        torch.testing.assert_close(state[f"fisher.{name}"], 0.9 * first[name] / norms[0] + second[name] / norms[1])
        assert torch.equal(state[f"anchor.{name}"], parameter)


def test_a_task_is_all_that_was_learnt_since_it_settled():
    learner = ToyLearner()
    ewc, anchor = Ewc(learner.parameters, strength=1.0, every=3, normalise=False, decay=0.5), copy_of(learner)
    by_hand = {name: torch.zeros_like(p) for name, p in anchor.items()}
    for version in range(3):
        assert same({name: ewc.state()[f"anchor.{name}"] for name in anchor}, anchor)
        shift(learner, 0.1, seed=version)
        samples = SAMPLES[:2] if version == 1 else SAMPLES[:1]
        for name, f in fisher(learner, samples).items():
            by_hand[name] += f * len(samples) / 4
        ewc.end(learner, samples, version)
    state = ewc.state()
    for name, parameter in learner.parameters.items():
        torch.testing.assert_close(state[f"fisher.{name}"], by_hand[name])
        assert torch.equal(state[f"anchor.{name}"], parameter)
        assert not state[f"collected.{name}"].any()
    ewc.settle(learner)  # nothing new to hold
    assert same(ewc.state(), state)


def test_samples_without_a_gradient_say_nothing():
    learner = ToyLearner()
    ewc = Ewc(learner.parameters, strength=1.0)
    before = ewc.state()
    shift(learner, 0.1)
    ewc.consolidate(learner, {name: torch.zeros_like(p) for name, p in copy_of(learner).items()})
    assert same(ewc.state(), before)


def test_a_foreign_state_is_refused():
    ewc = Ewc(ToyLearner().parameters, strength=1.0)
    with pytest.raises(ValueError, match="not the state"):
        ewc.load({})


def test_settled_at_every_micro_batch_of_one_step_it_would_do_nothing():
    """Why ``every`` is more than one version: each step begins at the anchor, where the penalty has no gradient."""
    ends = []
    for methods in ({}, {"ewc": Ewc(ToyLearner().parameters, strength=1000.0, every=1)}):
        learner = ToyLearner()
        optimizer, settings = SGD(learner.parameters, LearningSettings(learning_rate=0.1)), LearningSettings()
        for version in range(3):
            learn(learner, optimizer, SAMPLES, lambda step: [], settings, recipe=Recipe(methods), version=version)
        ends.append(copy_of(learner))
    assert same(*ends)
