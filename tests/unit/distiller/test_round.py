from __future__ import annotations

from typing import Any

import pytest
import torch

from lifelong.distiller.config import DistillerSettings
from lifelong.distiller.round import distil, score
from lifelong.learning.optimizers import SGD, AdamW
from lifelong.learning.settings import LearningSettings


def test_score_is_the_closed_form(teacher: Any, new_student: Any, new_sample: Any) -> None:
    student, samples = new_student(), [new_sample(number) for number in range(5)]
    settings = DistillerSettings(alpha=0.3, temperature=2.0)
    scores = score(teacher, student, samples, settings)

    with torch.no_grad():
        ours, theirs = student.logits(samples), teacher.logits(samples)
    log_s = torch.log_softmax(ours.logits_NV, -1)
    ce = -log_s.gather(1, ours.targets_N[:, None]).mean().item()
    soft_t, soft_s = torch.log_softmax(theirs.logits_NV / 2, -1), torch.log_softmax(ours.logits_NV / 2, -1)
    kl = (soft_t.exp() * (soft_t - soft_s)).sum(-1).mean().item()
    same = (ours.logits_NV.argmax(-1) == theirs.logits_NV.argmax(-1)).float().mean().item()
    assert scores.ce == pytest.approx(ce, rel=1e-4)
    assert scores.kl == pytest.approx(kl, rel=1e-4)
    assert scores.agreement == pytest.approx(same, abs=1e-6)
    assert scores.loss(settings) == pytest.approx(0.3 * ce + 0.7 * 4 * kl, rel=1e-4)


def test_passes_do_not_change_the_scores(teacher: Any, new_student: Any, new_sample: Any) -> None:
    student, samples = new_student(), [new_sample(number) for number in range(7)]
    whole = score(teacher, student, samples, DistillerSettings(tokens_per_pass=100_000))
    pieces = score(teacher, student, samples, DistillerSettings(tokens_per_pass=40))
    assert pieces == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("direction", ["teacher-student", "student-teacher"])
def test_distilling_brings_the_student_closer(teacher: Any, new_student: Any, new_sample: Any, direction: Any) -> None:
    student, samples = new_student(), [new_sample(number) for number in range(6)]
    settings = DistillerSettings(alpha=0.0, steps_per_round=30, direction=direction)
    before = score(teacher, student, samples, settings)
    optimizer = AdamW(student.parameters, LearningSettings(learning_rate=5e-3))
    num_tokens = distil(teacher, student, optimizer, lambda step: samples, settings, lambda step: True)
    after = score(teacher, student, samples, settings)
    assert num_tokens == 30 * sum(map(student.num_tokens, samples))
    assert after.kl < 0.5 * before.kl
    assert after.agreement > before.agreement


def test_the_teacher_does_not_change(teacher: Any, new_student: Any, new_sample: Any) -> None:
    student, samples = new_student(), [new_sample(1)]
    before = {name: parameter.clone() for name, parameter in teacher.parameters.items()}
    optimizer = AdamW(student.parameters, LearningSettings())
    distil(teacher, student, optimizer, lambda step: samples, DistillerSettings(steps_per_round=3), lambda step: True)
    assert all(torch.equal(before[name], parameter) for name, parameter in teacher.parameters.items())
    assert all(parameter.grad is None for parameter in teacher.parameters.values())


def test_a_step_goes_down_the_gradient_of_the_whole_however_many_passes_it_takes(
    teacher: Any, new_student: Any, new_sample: Any
) -> None:
    samples = [new_sample(number) for number in (1, 20, 300, 4000)]
    student, (alpha, temperature, rate) = new_student(), (0.3, 2.0, 0.1)
    ours, theirs = student.logits(samples), teacher.logits(samples)
    log_s = torch.log_softmax(ours.logits_NV, -1)
    ce = -log_s.gather(1, ours.targets_N[:, None]).mean()
    soft_t = torch.log_softmax(theirs.logits_NV.detach() / temperature, -1)
    soft_s = torch.log_softmax(ours.logits_NV / temperature, -1)
    kl = (soft_t.exp() * (soft_t - soft_s)).sum(-1).mean()
    (alpha * ce + (1 - alpha) * temperature**2 * kl).backward()
    expected = {n: p.detach() - rate * (0 if p.grad is None else p.grad) for n, p in student.parameters.items()}
    for tokens_per_pass in (100_000, 30):
        student = new_student()
        optimizer = SGD(student.parameters, LearningSettings(learning_rate=rate, max_grad_norm=0))
        settings = DistillerSettings(
            alpha=alpha, temperature=temperature, steps_per_round=1, tokens_per_pass=tokens_per_pass
        )
        distil(teacher, student, optimizer, lambda step: samples, settings, lambda step: True)
        assert student.parameters.keys() == expected.keys()
        for name, parameter in student.parameters.items():
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-4, atol=1e-6)


def test_ended_early_it_says_so(teacher: Any, new_student: Any, new_sample: Any) -> None:
    student, samples, begun = new_student(), [new_sample(1)], []

    def on_step(step: int) -> bool:
        begun.append(step)
        return step < 2

    optimizer = AdamW(student.parameters, LearningSettings())
    assert distil(teacher, student, optimizer, lambda step: samples, DistillerSettings(), on_step) is None
    assert begun == [0, 1, 2]
