"""Kept predictions against whole distributions."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from tests.learning.toy import ToyLearner, same, toy_sample
from torch.nn import functional as F

from lifelong.learning import predictions
from lifelong.learning.distill import distill_loss


@pytest.fixture
def random():
    generator = torch.Generator().manual_seed(0)
    return (
        3 * torch.randn(5, 50, generator=generator),
        3 * torch.randn(5, 50, generator=generator),
        torch.randint(50, (5,), generator=generator),
    )


def test_with_all_tokens_kept_it_is_the_whole_kl_without_the_true_token(random):
    old_NV, new_NV, targets_N = random
    kept = predictions.keep(old_NV, targets_N, 1000)
    assert kept.ids_NK.shape == (5, 49)
    found = predictions.divergence(kept, new_NV, targets_N).mean()
    whole = distill_loss(new_NV, old_NV, targets_N, alpha=0.0, mask_gold=True).kl
    assert found.item() == pytest.approx(whole.item(), rel=2e-3)


def test_of_a_few_tokens_it_is_the_kl_of_the_coarser_distributions(random):
    old_NV, new_NV, targets_N = random
    found = predictions.divergence(predictions.keep(old_NV, targets_N, 4), new_NV, targets_N)
    for row in range(5):
        others = [token for token in range(50) if token != targets_N[row]]
        p, q = F.softmax(old_NV[row, others].double(), 0), F.softmax(new_NV[row, others].double(), 0)
        top = p.topk(4).indices
        coarse_p, coarse_q = (torch.cat([d[top], (d.sum() - d[top].sum())[None]]) for d in (p, q))
        by_hand = (coarse_p * (coarse_p / coarse_q).log()).sum().item()
        assert found[row].item() == pytest.approx(by_hand, rel=5e-3, abs=1e-3)


def test_more_kept_is_never_less_divergence(random):
    old_NV, new_NV, targets_N = random
    by_number = [
        predictions.divergence(predictions.keep(old_NV, targets_N, number), new_NV, targets_N).mean().item()
        for number in (1, 2, 4, 8, 16, 32, 49)
    ]
    assert by_number == sorted(by_number)


@pytest.mark.parametrize("number", [1, 4, 49])
def test_what_is_still_said_costs_nothing_and_pulls_nowhere(random, number):
    logits_NV, _, targets_N = random
    logits_NV = logits_NV.requires_grad_()
    kl_N = predictions.divergence(predictions.keep(logits_NV, targets_N, number), logits_NV, targets_N)
    assert kl_N.abs().max().item() < 1e-3
    kl_N.sum().backward()
    assert logits_NV.grad.abs().max().item() < 5e-3


def test_the_true_token_is_not_pulled_at(random):
    old_NV, new_NV, targets_N = random
    new_NV.requires_grad_()
    predictions.divergence(predictions.keep(old_NV, targets_N, 8), new_NV, targets_N).sum().backward()
    assert new_NV.grad.gather(1, targets_N[:, None]).abs().max().item() == 0
    assert (new_NV.grad.abs().sum(dim=1) > 0).all()


def test_certainty_is_no_trouble():
    sure_NV = torch.zeros(1, 10)
    sure_NV[0, 3] = 1e5
    targets_N = torch.tensor([0])
    kept = predictions.keep(sure_NV, targets_N, 4)
    assert kept.ids_NK[0, 0] == 3
    other_NV = torch.zeros(1, 10, requires_grad=True)
    kl_N = predictions.divergence(kept, other_NV, targets_N)
    # All the mass on one of nine tokens against the same on each.
    assert kl_N.item() == pytest.approx(torch.tensor(9.0).log().item(), rel=1e-4)
    kl_N.sum().backward()
    assert torch.isfinite(other_NV.grad).all()


def test_bytes_and_back():
    learner, samples = ToyLearner(), [toy_sample(number) for number in range(4)]
    kept = predictions.keep_each(learner, samples, num_kept=3, tokens_per_pass=7)
    data = safetensors.torch.save(predictions.to_tensors(kept))
    back = predictions.from_tensors(safetensors.torch.load(data))
    assert back.keys() == kept.keys()
    assert same(predictions.to_tensors(back), predictions.to_tensors(kept))
    assert safetensors.torch.save(predictions.to_tensors(back)) == data
    num_tokens = sum(map(learner.num_targets, samples))
    assert sum(t.nbytes for t in predictions.to_tensors(kept).values()) == 6 * 3 * num_tokens


def test_each_is_kept_as_if_alone():
    learner, samples = ToyLearner(), [toy_sample(number) for number in range(4)]
    together = predictions.keep_each(learner, samples, num_kept=5, tokens_per_pass=1000)
    for sample in samples:
        logits_NV, targets_N, _ = learner.logits([sample])
        alone = predictions.keep(logits_NV, targets_N, 5)
        assert torch.equal(together[sample.id].ids_NK, alone.ids_NK)
        torch.testing.assert_close(together[sample.id].logprobs_NK, alone.logprobs_NK)


def test_strange_tensors_are_refused():
    good = predictions.to_tensors(predictions.keep_each(ToyLearner(), [toy_sample(1)], num_kept=3, tokens_per_pass=9))
    with pytest.raises(ValueError, match="not kept predictions"):
        predictions.from_tensors({"ids/0-1-0": good["ids/0-1-0"]})
    with pytest.raises(ValueError, match="int32"):
        predictions.from_tensors(good | {"ids/0-1-0": good["ids/0-1-0"].long()})
    with pytest.raises(ValueError, match="shapes"):
        predictions.from_tensors(good | {"ids/0-1-0": good["ids/0-1-0"][:, :2]})
