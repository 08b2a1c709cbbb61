"""Fading to the prior against its equation."""

from __future__ import annotations

import torch
from tests.learning.toy import ToyLearner, copy_of, toy_sample

from lifelong.learning.dynamic_evaluation import DynamicEvaluation
from lifelong.learning.ewc import fisher

SAMPLES = [toy_sample(1, "123"), toy_sample(2, "4")]


def moved(learner, by=0.5):
    with torch.no_grad():
        for parameter in learner.parameters.values():
            parameter.add_(by)
    return learner


def test_it_fades_by_its_share_a_step():
    learner = ToyLearner()
    method, prior = DynamicEvaluation(learner.parameters, decay=0.2, reference_tokens=100), copy_of(learner)
    moved(learner)
    method.after_update(learner, 100)
    method.after_update(learner, 50)
    for name, parameter in learner.parameters.items():
        torch.testing.assert_close(parameter.detach(), prior[name] + 0.5 * 0.8 * 0.8**0.5)


def test_what_matters_for_the_prior_returns_the_faster():
    learner = ToyLearner()
    method, prior = DynamicEvaluation(learner.parameters, decay=0.3, reference_tokens=100), copy_of(learner)
    method.measure(learner, SAMPLES)
    rms = {name: f.sqrt() for name, f in fisher(learner, SAMPLES).items()}
    mean = torch.cat([t.flatten() for t in rms.values()]).mean()
    moved(learner)
    method.after_update(learner, 100)
    shares = torch.cat([(1 - (p.detach() - prior[n]) / 0.5).flatten() for n, p in learner.parameters.items()])
    by_hand = torch.cat([(0.3 * rms[n] / mean).clamp(max=1).flatten() for n in learner.parameters])
    torch.testing.assert_close(shares, by_hand, rtol=1e-3, atol=1e-5)
    assert by_hand.max() == 1
    assert by_hand.min() < 0.1
