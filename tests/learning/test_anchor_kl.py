"""The base's own words by the whole of what the base says there, on a toy."""

from __future__ import annotations

import pytest
import torch
from tests.learning.toy import ToyLearner, copy_of, same, toy_anchor, toy_sample
from torch.nn import functional as F

from lifelong.learning import anchor_kl as module
from lifelong.learning.anchor_kl import AnchorKl
from lifelong.learning.losses import sample_losses

ANCHOR, SAMPLE = toy_anchor(1), toy_sample(2, task="anchor")
TEXT = toy_anchor(3, messages=(), text="5203")


def loss(method, learner, samples):
    predicted = learner.logits(samples)
    ce_S = sample_losses(predicted, len(samples))
    return method.loss(learner, samples, predicted, ce_S), ce_S


def at_base(learner):
    with torch.no_grad():
        for name, parameter in learner.parameters.items():
            if "lora_B" in name:
                parameter.zero_()
    return learner


def test_it_is_the_whole_kl_from_the_base_and_leaves_other_samples_alone():
    learner = ToyLearner()
    found_S, ce_S = loss(AnchorKl(strength=2.0, num_kept=1000), learner, [SAMPLE, ANCHOR])
    p, q = (F.log_softmax(learner.logits([ANCHOR], base=base)[0].double(), dim=-1) for base in (True, False))
    by_hand = F.kl_div(q, p, log_target=True, reduction="none").sum(dim=-1).mean()
    assert found_S[0] == ce_S[0]
    assert found_S[1].item() == pytest.approx(2 * by_hand.item(), rel=2e-3)


def test_where_the_model_is_the_base_it_pulls_nowhere_while_the_text_itself_would():
    learner = at_base(ToyLearner())
    found_S, ce_S = loss(AnchorKl(strength=1.0, num_kept=1000), learner, [ANCHOR])
    parameters = list(learner.parameters.values())
    pull, of_text = (
        torch.cat([g.flatten() for g in torch.autograd.grad(x.sum(), parameters, retain_graph=True)])
        for x in (found_S, ce_S)
    )
    assert found_S.item() == pytest.approx(0.0, abs=1e-3)
    assert pull.norm() < 0.01 * of_text.norm()


def test_an_answer_is_learnt_beside_it_and_a_text_is_not():
    learner = ToyLearner()
    kl_S, ce_S = loss(AnchorKl(strength=2.0), learner, [TEXT, ANCHOR])
    found_S, _ = loss(AnchorKl(strength=2.0, beta=0.5), learner, [TEXT, ANCHOR])
    assert found_S[0] == kl_S[0] > 0
    assert found_S[1].item() == pytest.approx((kl_S[1] + 0.5 * ce_S[1]).item(), rel=1e-6)


def test_the_base_is_asked_once():
    learner, method = ToyLearner(), AnchorKl(strength=1.0)
    loss(method, learner, [ANCHOR])
    kept = method.state()
    at_base(learner)
    asked = []
    logits = learner.logits
    learner.logits = lambda samples, *, base=False: asked.append(base) or logits(samples, base=base)
    loss(method, learner, [ANCHOR])
    assert asked == [False]
    assert same(method.state(), kept)
    assert sorted(kept) == [f"ids/{ANCHOR.id}", f"logprobs/{ANCHOR.id}"]


def test_some_that_will_come_are_asked_for_in_the_same_pass(monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    anchors = [toy_anchor(number) for number in range(5)]
    learner, method = ToyLearner(), AnchorKl(strength=1.0, anchors=anchors)
    asked = []
    logits = learner.logits
    learner.logits = lambda samples, *, base=False: (
        (asked.append([sample.id for sample in samples]) if base else None) or logits(samples, base=base)
    )
    for each in (2, 0, 4, 3, 1):
        loss(method, learner, [anchors[each]])
    assert asked == [[anchors[each].id for each in some] for some in ((2, 0, 1), (4, 3))]
    one_by_one = AnchorKl(strength=1.0)
    for each in anchors:
        loss(one_by_one, learner, [each])
    assert same(method.state(), one_by_one.state())


def test_steps_along_it_lead_back_to_the_base():
    learner, method = ToyLearner(), AnchorKl(strength=1.0)
    first = loss(method, learner, [ANCHOR])[0].item()
    before = copy_of(learner)
    for _ in range(200):
        found_S, _ = loss(method, learner, [ANCHOR])
        found_S.sum().backward()
        with torch.no_grad():
            for parameter in learner.parameters.values():
                parameter -= 0.05 * parameter.grad
                parameter.grad = None
    assert loss(method, learner, [ANCHOR])[0].item() < 0.1 * first
    assert not same(copy_of(learner), before)


def test_negative_strength_is_refused():
    with pytest.raises(ValueError, match="negative"):
        AnchorKl(strength=-1.0)
