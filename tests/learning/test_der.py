"""DER++ against its equation."""

from __future__ import annotations

import pytest
import torch
from tests.learning.toy import ToyLearner, same, toy_sample

from lifelong.learning.der import DarkReplay
from lifelong.learning.distill import distill_loss
from lifelong.learning.losses import sample_losses


def moved(learner):
    with torch.no_grad():
        for index, parameter in enumerate(learner.parameters.values()):
            parameter.mul_(0.5 + 0.3 * index)
    return learner


def test_the_loss_of_an_old_sample_is_the_equation():
    learner = ToyLearner()
    der = DarkReplay(alpha=0.7, beta=0.3, num_kept=100)
    old, unknown = [toy_sample(1, "12345"), toy_sample(2, "6")], toy_sample(3)
    before = [learner.logits([sample]).logits_NV for sample in old]
    der.end(learner, old, 1)
    moved(learner)
    samples = [old[1], unknown, old[0]]
    predicted = learner.logits(samples)
    ce_S = sample_losses(predicted, 3)
    found = der.loss(learner, samples, predicted, ce_S)
    for place, sample, then_NV in ((0, old[1], before[1]), (2, old[0], before[0])):
        now = learner.logits([sample])
        by_hand = distill_loss(now.logits_NV, then_NV, now.targets_N, alpha=0.3, mask_gold=True)
        assert found[place].item() == pytest.approx(by_hand.total.item(), rel=2e-3)
    assert found[1] == ce_S[1]


def test_right_after_it_was_learnt_only_the_label_pulls():
    learner, der, sample = ToyLearner(), DarkReplay(alpha=0.75, beta=0.25), toy_sample(1)
    der.end(learner, [sample], 1)
    gradients = []
    for is_dark in (False, True):
        predicted = learner.logits([sample])
        loss_S = sample_losses(predicted, 1)
        loss_S = der.loss(learner, [sample], predicted, loss_S) if is_dark else 0.25 * loss_S
        loss_S.sum().backward()
        gradients.append({name: p.grad.clone() for name, p in learner.parameters.items()})
        for parameter in learner.parameters.values():
            parameter.grad = None
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=0.02, atol=2e-3)


def test_what_is_relearnt_is_remembered_anew():
    learner, der, sample = ToyLearner(), DarkReplay(alpha=0.5), toy_sample(1)
    der.end(learner, [sample], 1)
    first = der.state()
    moved(learner)
    der.begin(learner, [sample], 2)
    assert der.state() == {}
    der.end(learner, [sample], 2)
    assert not same(der.state(), first)


def test_what_is_forgotten_leaves_nothing():
    learner, der = ToyLearner(), DarkReplay(alpha=0.5)
    der.end(learner, [toy_sample(1), toy_sample(2)], 1)
    der.keep({"0-2-0"})
    assert sorted(der.state()) == ["ids/0-2-0", "logprobs/0-2-0"]


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="negative"):
        DarkReplay(alpha=-0.5)


def test_what_is_said_when_first_replayed_can_be_kept_instead():
    learner, der, sample = ToyLearner(), DarkReplay(alpha=0.5, when="replayed"), toy_sample(1)

    def loss(version):
        der.begin(learner, [toy_sample(9 + version)], version)
        predicted = learner.logits([sample, toy_sample(9 + version)])
        ce_S = sample_losses(predicted, 2)
        found = der.loss(learner, [sample, toy_sample(9 + version)], predicted, ce_S)
        der.end(learner, [toy_sample(9 + version)], version)
        return found.detach(), ce_S.detach()

    found, ce = loss(1)
    # The label alone at first, and nothing is kept of what is new.
    assert same({"loss": found}, {"loss": ce})
    assert sorted(der.state()) == ["ids/0-1-0", "logprobs/0-1-0"]
    same_weights, ce = loss(2)
    assert same_weights[0].item() == pytest.approx(ce[0].item(), abs=1e-3)
    moved(learner)
    found, ce = loss(3)
    assert found[0] > ce[0] + 0.01
    assert found[1] == ce[1]


def test_what_was_kept_of_another_length_is_kept_anew():
    learner, der = ToyLearner(), DarkReplay(alpha=0.5, when="replayed")
    long, cut = toy_sample(1, "12345"), toy_sample(1, "12")
    assert long.id == cut.id
    for sample in (long, cut):
        predicted = learner.logits([sample])
        loss_S = sample_losses(predicted, 1)
        assert torch.equal(der.loss(learner, [sample], predicted, loss_S), loss_S)
        assert len(der._kept[sample.id].ids_NK) == len(predicted.targets_N)
