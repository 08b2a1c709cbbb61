"""Staying near the base, or near what was said before, against the whole KL."""

from __future__ import annotations

import pytest
import torch
from tests.learning.toy import ToyLearner, copy_of, same, toy_sample
from torch.nn import functional as F

from lifelong.learning.distill import distill_loss
from lifelong.learning.kl_base import KlToBase, LearningWithoutForgetting
from lifelong.learning.losses import sample_losses

SAMPLES = [toy_sample(1, "1234"), toy_sample(2, "5")]


def moved(learner):
    with torch.no_grad():
        for parameter in learner.parameters.values():
            parameter.mul_(0.3)
    return learner


def test_kl_to_the_base_of_each_sample():
    learner, method = ToyLearner(), KlToBase(strength=0.7, num_kept=100)
    predicted = learner.logits(SAMPLES)
    ce_S = sample_losses(predicted, 2)
    found = method.loss(learner, SAMPLES, predicted, ce_S)
    for place, sample in enumerate(SAMPLES):
        now, base = learner.logits([sample]), learner.logits([sample], base=True)
        kl = distill_loss(now.logits_NV, base.logits_NV, now.targets_N, alpha=0.0, mask_gold=True).kl
        assert kl > 0.05
        assert found[place].item() == pytest.approx((ce_S[place] + 0.7 * kl).item(), rel=2e-3)


def test_the_base_is_asked_once_a_micro_batch_and_sample():
    learner, method = ToyLearner(), KlToBase(strength=1.0)
    asked = []
    logits = learner.logits

    def counted(samples, *, base=False):
        asked.extend(sample.id for sample in samples if base)
        return logits(samples, base=base)

    learner.logits = counted
    for version in (1, 2):
        method.begin(learner, SAMPLES[:1], version)
        for samples in (SAMPLES[:1], SAMPLES, SAMPLES):
            predicted = learner.logits(samples)
            method.loss(learner, samples, predicted, sample_losses(predicted, len(samples)))
        method.end(learner, SAMPLES[:1], version)
    assert asked == ["0-1-0", "0-2-0"] * 2


def test_lwf_is_the_kl_to_the_softened_answers_of_before_and_leaves_old_samples_alone():
    learner, temperature = ToyLearner(), 2.0
    method = LearningWithoutForgetting(learner.parameters, strength=0.5, num_kept=100)
    before_NV = learner.logits(SAMPLES[:1]).logits_NV.detach()
    method.begin(learner, SAMPLES[:1], 1)
    moved(learner)
    predicted = learner.logits(SAMPLES)
    ce_S = sample_losses(predicted, 2)
    found = method.loss(learner, SAMPLES, predicted, ce_S)
    now = learner.logits(SAMPLES[:1])
    kl = distill_loss(
        now.logits_NV, before_NV, now.targets_N, alpha=0.0, temperature=temperature, mask_gold=True
    ).kl  # fmt: skip
    assert found[0].item() == pytest.approx((ce_S[0] + 0.5 * temperature**2 * kl).item(), rel=2e-3)
    assert found[1] == ce_S[1]


def test_the_paper_s_loss_has_the_same_gradient():
    """-Σ y'_before ln y'_now over the tokens besides the true one, at temperature 2."""
    gradients = []
    for is_paper in (False, True):
        learner = ToyLearner()
        method = LearningWithoutForgetting(learner.parameters, strength=1.0, num_kept=100)
        sample = SAMPLES[1]
        before_NV = learner.logits([sample]).logits_NV.detach()
        method.begin(learner, [sample], 1)
        moved(learner)
        predicted = learner.logits([sample])
        if is_paper:
            others = [token for token in range(10) if token != 5]
            y_then, log_y_now = (
                (before_NV[0, others] / 2).softmax(0),
                F.log_softmax(predicted.logits_NV[0, others] / 2, 0),
            )
            loss = -4 * (y_then * log_y_now).sum()
        else:
            zero_S = 0 * sample_losses(predicted, 1)
            loss = method.loss(learner, [sample], predicted, zero_S).sum()
        loss.backward()
        gradients.append({name: p.grad for name, p in learner.parameters.items()})
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=5e-3, atol=2e-3)


def test_before_anything_moved_lwf_pulls_nowhere():
    learner = ToyLearner()
    method = LearningWithoutForgetting(learner.parameters, strength=10.0)
    method.begin(learner, SAMPLES, 1)
    predicted = learner.logits(SAMPLES)
    ce_S = sample_losses(predicted, 2)
    torch.testing.assert_close(method.loss(learner, SAMPLES, predicted, ce_S), ce_S, rtol=0, atol=2e-2)


def test_a_temperature_of_nothing_is_refused():
    with pytest.raises(ValueError, match="temperature"):
        LearningWithoutForgetting({}, strength=1.0, temperature=0.0)


def test_the_teacher_stays_for_some_versions_and_the_model_is_left_as_it_was():
    learner = ToyLearner()
    method = LearningWithoutForgetting(learner.parameters, strength=1.0, every=2, num_kept=100)
    kls = []
    for version in range(4):
        before = copy_of(learner)
        method.begin(learner, SAMPLES, version)
        assert same(copy_of(learner), before)
        predicted = learner.logits(SAMPLES)
        kls.append(method.loss(learner, SAMPLES, predicted, torch.zeros(2)).sum().item())
        method.end(learner, SAMPLES, version)
        moved(learner)
    assert kls[0] == pytest.approx(0.0, abs=1e-2)
    assert kls[2] == pytest.approx(0.0, abs=1e-2)
    assert kls[1] > 0.1
