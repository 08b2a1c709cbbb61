"""KTO against its equation."""

from __future__ import annotations

import math

import pytest
import torch
from tests.learning.toy import ToyLearner, toy_sample

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.learning.kto import Kto, disliked_answer, is_rated, kto_loss
from lifelong.learning.losses import evaluate, sample_losses
from lifelong.learning.online import learn
from lifelong.learning.optimizers import SGD
from lifelong.learning.preference import is_pair
from lifelong.learning.recipe import Recipe
from lifelong.learning.reference import sequence_logprobs
from lifelong.learning.settings import LearningSettings

LIKED, DISLIKED = toy_sample(1, "12", rating=1.0), toy_sample(2, "345", rating=-0.5, weight=0.5)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def test_by_hand():
    found = kto_loss(
        torch.tensor([2.0, 2.0]), torch.tensor([True, False]), 0.5, beta=0.4, of_liked=1.5, of_disliked=0.7
    )
    assert found.tolist() == pytest.approx([1.5 * (1 - sigmoid(0.6)), 0.7 * (1 - sigmoid(-0.6))])


def test_the_gradient_is_strongest_at_the_point_of_reference_and_saturates():
    ratio = torch.tensor([-60.0, 0.5, 60.0], requires_grad=True)
    kto_loss(ratio, torch.tensor([True, True, True]), 0.5, beta=0.4).sum().backward()
    assert ratio.grad[1].item() == pytest.approx(-0.4 / 4)
    assert ratio.grad[[0, 2]].abs().max().item() < 1e-6


def test_the_loss_of_samples_is_the_equation_with_answers_of_others_for_the_reference():
    learner, kto, plain = ToyLearner(), Kto(strength=2.0, beta=0.3), toy_sample(3)
    kto.begin(learner, [LIKED, plain, DISLIKED], 1)
    samples = [DISLIKED, plain, LIKED]
    predicted = learner.logits(samples)
    ce_S = sample_losses(predicted, 3)
    found = kto.loss(learner, samples, predicted, ce_S)

    def ratio(*asked):
        now, base = (sequence_logprobs(learner.logits(asked, base=base), len(asked)) for base in (False, True))
        return now - base

    crossed = [toy_sample(1, "345"), toy_sample(2, "12")]
    z0 = max(0.0, ratio(*crossed).mean().item())
    assert found[1] == ce_S[1]
    liked, disliked = ratio(LIKED).item(), ratio(DISLIKED).item()
    assert found[2].item() == pytest.approx(ce_S[2].item() + 2 * (1 - sigmoid(0.3 * (liked - z0))), rel=1e-4)
    assert found[0].item() == pytest.approx(2 * (1 - sigmoid(0.3 * (z0 - disliked))), rel=1e-4)


def test_what_is_disliked_becomes_less_likely_and_what_is_liked_more():
    settings = LearningSettings(optimizer="sgd", learning_rate=0.2, max_grad_norm=0)
    learner, disliked = ToyLearner(), toy_sample(2, "345", rating=-1.0)
    before = evaluate(learner, [LIKED, disliked], 100)
    recipe, optimizer = Recipe({"kto": Kto(strength=5.0, beta=0.5)}), SGD(learner.parameters, settings)
    for version in range(10):
        learn(learner, optimizer, [LIKED, disliked], lambda step: [], settings, recipe=recipe, version=version)
    after = evaluate(learner, [LIKED, disliked], 100)
    assert after[LIKED.id] < before[LIKED.id] - 0.1
    assert after[disliked.id] > before[disliked.id] + 0.01


def test_a_disliked_answer_is_found_where_nobody_imitates_it():
    complaint = Sample(
        id="0-1-0", event_id="e", event_time=0.0, task="feedback", messages=(Message("user", "Why?"),),
        rejected="because", rating=-0.7, weight=0.0,
    )  # fmt: skip
    found = disliked_answer(complaint)
    assert found.messages == (Message("user", "Why?"), Message("assistant", "because"))
    assert (found.weight, found.id, found.rejected) == (0.7, "0-1-0", None)
    assert is_rated(found)
    assert not is_pair(complaint)
    assert disliked_answer(LIKED) is None
    assert disliked_answer(toy_sample(1, rating=-1.0, rejected="1", until_known=True)) is None


def test_against_what_was_said_first_a_new_rating_starts_at_the_point_of_reference():
    learner, kto = ToyLearner(), Kto(strength=1.0, of_disliked=0.8, reference="first")
    kto.begin(learner, [DISLIKED], 1)
    predicted = learner.logits([DISLIKED])
    found = kto.loss(learner, [DISLIKED], predicted, sample_losses(predicted, 1))
    assert found.item() == pytest.approx(0.8 / 2, rel=1e-5)


def test_of_a_longer_conversation_only_the_disliked_answer_is_scored(learner):
    turns = (Message("user", "Hi."), Message("assistant", "Hello!"), Message("user", "Why?"))
    complaint = Sample(
        id="0-1-0", event_id="e", event_time=0.0, task="feedback", messages=turns, rejected="Because.", rating=-1.0
    )
    targets = learner.logits([disliked_answer(complaint)]).targets_N.tolist()
    assert learner.base.tokenizer.decode(targets, skip_special_tokens=True).strip() == "Because."


def test_corrections_pairs_and_indifference_are_not_ratings():
    assert is_rated(LIKED)
    assert not is_rated(toy_sample(1, rating=0.0))
    assert not is_rated(toy_sample(1))
    assert not is_rated(toy_sample(1, rating=-1.0, until_known=True))
    assert not is_rated(toy_sample(1, rating=-1.0, rejected="1"))


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="beta"):
        Kto(strength=1.0, beta=-1.0)
