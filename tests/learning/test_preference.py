"""DPO against its equation, its gradient and its optimum."""

from __future__ import annotations

import math

import pytest
import torch
from tests.learning.toy import ToyLearner, toy_sample

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.learning.losses import sample_losses
from lifelong.learning.preference import Dpo, dpo_loss, rejected_answer
from lifelong.learning.reference import Reference, sequence_logprobs

PAIR = toy_sample(1, "123", rejected="45")


def logp(learner, sample, *, base=False):
    logits_NV, targets_N, _ = learner.logits([sample], base=base)
    return sum(row.log_softmax(0)[target] for row, target in zip(logits_NV, targets_N, strict=True))


def test_an_answers_likelihood_is_the_sum_over_its_tokens():
    learner, samples = ToyLearner(), [toy_sample(1, "123"), toy_sample(2, "4")]
    found = sequence_logprobs(learner.logits(samples), 2)
    for value, sample in zip(found, samples, strict=True):
        torch.testing.assert_close(value, logp(learner, sample))


def test_the_loss_is_the_equation():
    learner, dpo = ToyLearner(), Dpo(strength=0.8, beta=0.3, of_chosen=0.5)
    samples = [toy_sample(7), PAIR]
    predicted = learner.logits(samples)
    ce_S = sample_losses(predicted, 2)
    found = dpo.loss(learner, samples, predicted, ce_S)
    worse = rejected_answer(PAIR)
    margin = (logp(learner, PAIR) - logp(learner, PAIR, base=True)) - (
        logp(learner, worse) - logp(learner, worse, base=True)
    )
    assert found[1].item() == pytest.approx((0.5 * ce_S[1] + 0.8 * (1 + (-0.3 * margin).exp()).log()).item())
    assert found[0] == ce_S[0]


def test_its_gradient_pulls_them_apart_by_how_wrong_the_order_is():
    """∇L = -β σ(-β m) (∇ ln π(y_w) - ∇ ln π(y_l))."""
    learner, dpo = ToyLearner(), Dpo(strength=1.0, beta=0.3, of_chosen=0.0)
    predicted = learner.logits([PAIR])
    dpo.loss(learner, [PAIR], predicted, sample_losses(predicted, 1)).sum().backward()
    found = {name: p.grad.clone() for name, p in learner.parameters.items()}
    for parameter in learner.parameters.values():
        parameter.grad = None
    worse = rejected_answer(PAIR)
    apart = logp(learner, PAIR) - logp(learner, worse)
    margin = apart - logp(learner, PAIR, base=True) + logp(learner, worse, base=True)
    apart.backward()
    share = -0.3 * torch.sigmoid(-0.3 * margin.detach())
    for name, parameter in learner.parameters.items():
        torch.testing.assert_close(found[name], share * parameter.grad)


def test_its_optimum_is_that_of_bradley_and_terry():
    """Preferred three times of four: β times the difference of the log-ratios is ln 3."""
    beta, margin, zero = 0.2, torch.zeros(1, dtype=torch.float64, requires_grad=True), torch.zeros(1)
    for _ in range(2000):
        loss = 0.75 * dpo_loss(margin, zero, zero, zero, beta) + 0.25 * dpo_loss(zero, margin, zero, zero, beta)
        loss.backward()
        with torch.no_grad():
            margin -= 10 * margin.grad
            margin.grad = None
    assert beta * margin.item() == pytest.approx(math.log(3), rel=1e-6)


def test_where_nothing_has_moved_the_loss_is_ln_two():
    learner, dpo = ToyLearner(), Dpo(strength=1.0, of_chosen=0.0, reference="first")
    predicted = learner.logits([PAIR])
    assert dpo.loss(learner, [PAIR], predicted, torch.zeros(1)).item() == pytest.approx(math.log(2))


def test_the_first_reference_stays_when_the_model_moves_and_goes_with_its_sample():
    learner, reference = ToyLearner(), Reference("first")
    first = reference.logprobs(learner, [PAIR, rejected_answer(PAIR)])
    with torch.no_grad():
        for parameter in learner.parameters.values():
            parameter.mul_(0.5)
    reference.begin()
    other = Reference("first")
    other.load(reference.state())
    assert torch.equal(other.logprobs(learner, [PAIR, rejected_answer(PAIR)]), first)
    assert sorted(other.state()) == ["0-1-0", "0-1-0/rejected"]
    other.keep({"0-2-0"})
    assert other.state() == {}
    assert not torch.equal(other.logprobs(learner, [PAIR]), first[:1])


def test_strange_states_are_refused():
    with pytest.raises(ValueError, match="needs no state"):
        Dpo(strength=1.0).load({"x": torch.zeros(1, dtype=torch.float64)})
    with pytest.raises(ValueError, match="one number"):
        Dpo(strength=1.0, reference="first").load({"x": torch.zeros(2)})
    with pytest.raises(ValueError, match="beta"):
        Dpo(strength=1.0, beta=0.0)


def test_of_a_longer_conversation_only_the_two_answers_are_compared(learner):
    """With a real chat template: what was said before them cancels out."""
    turns = (Message("user", "Hi."), Message("assistant", "Hello!"), Message("user", "What is 2?"))
    pair = Sample(
        id="0-1-0", event_id="e", event_time=0.0, task="preference",
        messages=(*turns, Message("assistant", "a number")), rejected="a letter",
    )  # fmt: skip
    worse = rejected_answer(pair)
    assert worse.messages == (*turns, Message("assistant", "a letter"))
    assert rejected_answer(worse).messages == pair.messages
    said = [learner.logits([sample]).targets_N.tolist() for sample in (pair, worse)]
    texts = [learner.base.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in said]
    assert texts == ["a number", "a letter"]


def test_a_rejected_answer_of_nothing_makes_no_pair():
    learner, dpo = ToyLearner(), Dpo(strength=1.0)
    empty = toy_sample(1, "123", rejected="")
    predicted = learner.logits([empty])
    ce_S = sample_losses(predicted, 1)
    assert dpo.loss(learner, [empty], predicted, ce_S) is ce_S
