from __future__ import annotations

import msgspec
import pytest
import torch
from tests.learning.toy import ToyLearner, toy_sample

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.learning.base import Logits
from lifelong.learning.losses import are_first_choices, evaluate
from lifelong.learning.meter import base_losses
from lifelong.learning.online import learn
from lifelong.learning.optimizers import SGD
from lifelong.learning.prequential import FADING, Prequential, PrequentialState, is_answer
from lifelong.learning.settings import LearningSettings


def test_the_fading_mean_is_the_weighted_one():
    prequential = Prequential()
    losses = [3.0, 1.0, 2.0, 0.5]
    for loss in losses:
        prequential.saw("mail", loss, None)
    weights = [FADING**age for age in reversed(range(len(losses)))]
    expected = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
    assert prequential.losses == pytest.approx({"mail": expected})
    assert prequential.accuracies == {}


def test_what_is_long_ago_fades():
    prequential = Prequential()
    for number in range(1000):
        prequential.saw("mail", 5.0 if number < 500 else 1.0, number >= 500)
    assert prequential.losses["mail"] == pytest.approx(1.0, abs=0.05)
    assert prequential.accuracies["mail"] == pytest.approx(1.0, abs=0.01)


def test_no_number_is_no_loss():
    prequential = Prequential()
    prequential.saw("mail", float("nan"), False)
    assert (prequential.losses, prequential.accuracies) == ({}, {"mail": 0.0})


def test_the_state_goes_through_json():
    prequential, restored = Prequential(), Prequential()
    for number in range(7):
        prequential.saw("mail", number / 3, number % 2 == 0)
    restored.load(msgspec.json.decode(msgspec.json.encode(prequential.state()), type=PrequentialState))
    assert restored.state() == prequential.state()


def sample_with(*roles: str, text: str | None = None) -> Sample:
    messages = tuple(Message(role, "x") for role in roles)
    return Sample(id="1", event_id="1", event_time=0.0, task="t", messages=messages, text=text)


def test_what_has_one_answer():
    assert is_answer(sample_with("user", "assistant"))
    assert is_answer(sample_with("system", "user", "assistant"))
    assert not is_answer(sample_with("user", "assistant", "user", "assistant"))
    assert not is_answer(sample_with("user"))
    assert not is_answer(sample_with(text="a text"))


def test_all_tokens_have_to_be_first_choices():
    logits_NV = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 1.0], [1.0, 2.0]])
    predicted = Logits(logits_NV, torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    assert are_first_choices(predicted, 3) == [True, False, True]


def test_right_is_judged_before_the_first_step():
    """After enough steps everything is right; before, it is as the weights were."""
    settings = LearningSettings(optimizer="sgd", learning_rate=1.0, max_grad_norm=0, min_steps=30, max_steps=30)
    new = [toy_sample(1, "12"), toy_sample(2, "345")]
    learner = ToyLearner()
    expected = {sample.id: are_first_choices(learner.logits([sample]), 1)[0] for sample in new}
    lessons = [learn(learner, SGD(learner.parameters, settings), new, lambda step: [], settings) for _ in range(2)]
    assert lessons[0].right == expected
    assert lessons[1].right == {sample.id: are_first_choices(learner.logits([sample]), 1)[0] for sample in new}
    assert lessons[0].right != lessons[1].right


def test_losses_under_the_base(learner):
    samples = [sample_with("user", "assistant")]
    found = base_losses(learner, samples, 64)
    for parameter in learner.parameters.values():
        parameter.data.zero_()
    # With nothing in the adapter the model is its base.
    assert found == pytest.approx(base_losses(learner, samples, 64))
    assert found == pytest.approx(evaluate(learner, samples, 64), abs=1e-5)
