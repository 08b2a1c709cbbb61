"""L = αCE + (1-α)T²KL against closed forms worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lifelong.learning.distill import distill_loss, kl_divergence


def test_equals_the_closed_form_for_two_words():
    """With two words and logits (d, 0) the probability of the first is σ(d), softened σ(d/T)."""
    student, teacher, alpha, temperature = 0.7, -1.3, 0.3, 2.0

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    p, q = sigmoid(teacher / temperature), sigmoid(student / temperature)
    kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    ce = -math.log(1 - sigmoid(student))
    found = distill_loss(
        torch.tensor([[student, 0.0]]), torch.tensor([[teacher, 0.0]]), torch.tensor([1]),
        alpha=alpha, temperature=temperature,
    )  # fmt: skip
    assert found.ce.item() == pytest.approx(ce, rel=1e-5)
    assert found.kl.item() == pytest.approx(kl, rel=1e-5)
    assert found.total.item() == pytest.approx(alpha * ce + (1 - alpha) * 4 * kl, rel=1e-5)


def test_hot_gradients_match_the_squared_difference_of_logits():
    """Hinton et al., eq. 4: for T → ∞ and centred logits, T² dKL/dz = (z - v) / V."""
    generator = torch.Generator().manual_seed(0)
    z, v = torch.randn(1, 5, generator=generator, dtype=torch.float64), torch.randn(1, 5, generator=generator)
    z = (z - z.mean()).float().requires_grad_()
    v = v - v.mean()
    distill_loss(z, v, torch.tensor([0]), alpha=0.0, temperature=300.0).total.backward()
    torch.testing.assert_close(z.grad, (z.detach() - v) / 5, rtol=0.02, atol=2e-3)


def test_directions():
    p, q = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    options = {"alpha": 0.0, "temperature": 1.0}
    forward = distill_loss(q, p, torch.tensor([0]), **options, direction="teacher-student")
    backward = distill_loss(q, p, torch.tensor([0]), **options, direction="student-teacher")
    torch.testing.assert_close(forward.total, kl_divergence(p, q))
    torch.testing.assert_close(backward.total, kl_divergence(q, p))
    assert forward.kl.item() != pytest.approx(backward.kl.item(), rel=0.01)


def test_masking_gold_leaves_its_logit_out_of_the_kl():
    student = torch.tensor([[5.0, 0.3, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-5.0, 0.3, 0.0]])
    found = distill_loss(student, teacher, torch.tensor([0]), alpha=0.0, mask_gold=True)
    assert found.kl.item() == pytest.approx(0.0, abs=1e-6)
    found.total.backward()
    assert student.grad[0, 0].item() == pytest.approx(0.0, abs=1e-6)


def test_no_gradient_reaches_the_teacher():
    teacher = torch.zeros(1, 2, requires_grad=True)
    student = torch.ones(1, 2, requires_grad=True)
    distill_loss(student, teacher, torch.tensor([0]), alpha=0.5).total.backward()
    assert teacher.grad is None


@pytest.mark.parametrize(("alpha", "temperature"), [(-0.1, 1.0), (1.1, 1.0), (0.5, 0.0), (0.5, -1.0)])
def test_nonsense_is_refused(alpha, temperature):
    with pytest.raises(ValueError, match=r"alpha|temperature"):
        distill_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]), alpha=alpha, temperature=temperature)
