"""What a sample's loss and a micro-batch's gradient are."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lifelong.learning.base import Logits, chunks
from lifelong.learning.losses import evaluate, sample_losses, weights


def test_a_samples_loss_is_the_mean_over_its_tokens():
    logits_NV = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    targets_N = torch.tensor([0, 2, 2])
    found = sample_losses(Logits(logits_NV, targets_N, torch.tensor([0, 0, 2])), 3)
    by_hand = [-F.log_softmax(row, dim=0)[target].item() for row, target in zip(logits_NV, targets_N, strict=True)]
    assert found.tolist() == pytest.approx([(by_hand[0] + by_hand[1]) / 2, 0.0, by_hand[2]])


def test_the_gradient_of_eight_is_the_mean_gradient_of_eight_singles(learner, new_sample):
    samples = [new_sample(number, answer="yes " * (number + 1)) for number in range(8)]
    sample_losses(learner.logits(samples), 8).mean().backward()
    together = {name: parameter.grad.clone() for name, parameter in learner.parameters.items()}
    for parameter in learner.parameters.values():
        parameter.grad = None
    for sample in samples:
        (sample_losses(learner.logits([sample]), 1).sum() / 8).backward()
    for name, parameter in learner.parameters.items():
        torch.testing.assert_close(parameter.grad, together[name], rtol=1e-4, atol=1e-6)


def test_padded_and_packed_rows_have_the_same_losses(learner, new_sample):
    samples = [new_sample(number, answer="word " * (number + 1)) for number in range(4)]
    assert learner._packs
    packed = sample_losses(learner.logits(samples), 4)
    learner._packs = False
    torch.testing.assert_close(sample_losses(learner.logits(samples), 4), packed, rtol=1e-5, atol=1e-5)


def test_the_base_is_the_model_without_what_it_learnt(learner, new_sample):
    samples = [new_sample(1)]
    learnt = learner.logits(samples).logits_NV
    base = learner.logits(samples, base=True).logits_NV
    assert not torch.equal(learnt, base)
    with torch.no_grad():
        for name, parameter in learner.parameters.items():
            if ".lora_B." in name:
                parameter.zero_()
    assert torch.equal(learner.logits(samples).logits_NV, base)


def test_evaluate_teaches_nothing_and_bounds_a_pass(learner, new_sample):
    samples = [new_sample(number) for number in range(5)]
    one_at_a_time = evaluate(learner, samples, max_tokens=1)
    assert list(one_at_a_time) == [sample.id for sample in samples]
    assert evaluate(learner, samples, max_tokens=10_000) == pytest.approx(one_at_a_time, rel=1e-5)
    assert all(parameter.grad is None for parameter in learner.parameters.values())


def test_chunks_keep_the_order_and_the_bound(learner, new_sample):
    samples = [new_sample(number, answer="a" * 10 * (number % 3 + 1)) for number in range(7)]
    pieces = list(chunks(learner, samples, max_tokens=150))
    assert [sample for piece in pieces for sample in piece] == samples
    assert len(pieces) > 1
    assert all(len(piece) == 1 or sum(map(learner.num_tokens, piece)) <= 150 for piece in pieces)


def test_weights_are_those_of_the_samples(new_sample):
    found = weights([new_sample(1, weight=0.5), new_sample(2)], torch.device("cpu"))
    assert found.tolist() == [0.5, 1.0]
