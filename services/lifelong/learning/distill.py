"""A student learns from a teacher: L = α CE + (1-α) T² KL.

Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", https://arxiv.org/abs/1503.02531: with both
distributions softened by the temperature T the gradient of the KL shrinks as 1/T², so that the factor T² keeps the
weight of the two terms as T changes.

The direction is that of the paper, KL(teacher ‖ student): the student must put mass wherever the teacher does. The
other one, KL(student ‖ teacher), lets a small student keep to the teacher's modes (https://arxiv.org/abs/2306.08543).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn import functional as F

Direction = Literal["teacher-student", "student-teacher"]


class DistillLoss(NamedTuple):
    """Scalars, in nats per token. ``kl`` is that of the softened distributions, without T²."""

    total: Tensor
    ce: Tensor
    kl: Tensor


def distill_loss(
    student_NV: Tensor,
    teacher_NV: Tensor,
    targets_N: Tensor,
    *,
    alpha: float,
    temperature: float = 1.0,
    direction: Direction = "teacher-student",
    mask_gold: bool = False,
) -> DistillLoss:
    """L = α CE + (1-α) T² KL, each a mean over the N tokens.

    Args:
        student_NV: logits. teacher_NV: logits over the same vocabulary, through which no gradient goes.
        targets_N: what was really said.
        alpha: 0 is the teacher only, 1 the data only.
        mask_gold: leave the true token out of the KL (both distributions renormalised over the others), so that the
            two terms do not pull it in different directions (https://arxiv.org/abs/2605.29498).

    Raises:
        ValueError: alpha outside [0, 1], or a temperature that is not positive.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    ce = F.cross_entropy(student_NV.float(), targets_N)
    student, teacher = student_NV.float() / temperature, teacher_NV.detach().float() / temperature
    if mask_gold:
        # As good as -inf, without the NaN of 0 · (-inf - -inf).
        gold_N1 = targets_N[:, None]
        student, teacher = student.scatter(1, gold_N1, -1e9), teacher.scatter(1, gold_N1, -1e9)
    kl = kl_divergence(student, teacher) if direction == "student-teacher" else kl_divergence(teacher, student)
    return DistillLoss(alpha * ce + (1 - alpha) * temperature**2 * kl, ce, kl)


def kl_divergence(p_NV: Tensor, q_NV: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ_v p (ln p - ln q), the mean over the N tokens, in nats; both given as logits."""
    log_p, log_q = F.log_softmax(p_NV, dim=-1), F.log_softmax(q_NV, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()
