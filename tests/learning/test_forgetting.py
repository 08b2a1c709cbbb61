"""Examples worked by hand."""

from __future__ import annotations

import pytest

from lifelong.learning.forgetting import summarise

#      task:  a     b     c
MATRIX = [
    [0.90, 0.20, 0.10],  # after a
    [0.70, 0.80, 0.30],  # after b
    [0.60, 0.85, 0.70],  # after c
]


def test_three_tasks():
    found = summarise(MATRIX, untrained=[0.10, 0.10, 0.20])
    assert found.average_accuracy == pytest.approx((0.60 + 0.85 + 0.70) / 3)
    # a fell from .90 to .60; b from .80 rose to .85, which is forgetting of -.05.
    assert found.forgetting == pytest.approx((0.30 - 0.05) / 2)
    assert found.backward_transfer == pytest.approx((-0.30 + 0.05) / 2)
    assert found.forward_transfer == pytest.approx((0.10 + 0.10) / 2)
    assert found.plasticity == pytest.approx((0.90 + 0.80 + 0.70) / 3)
    assert found.anytime_average == pytest.approx((0.90 + 0.75 + (0.60 + 0.85 + 0.70) / 3) / 3)


def test_forgetting_is_from_the_best_ever_and_backward_transfer_from_the_first_time():
    matrix = [[0.5, 0.0, 0.0], [0.9, 0.6, 0.0], [0.7, 0.6, 0.6]]
    found = summarise(matrix)
    assert found.forgetting == pytest.approx(0.1)
    assert found.backward_transfer == pytest.approx(0.1)
    assert found.forward_transfer is None


def test_one_task_has_nothing_to_forget():
    found = summarise([[0.4]], untrained=[0.1])
    assert (found.average_accuracy, found.plasticity, found.anytime_average) == (0.4, 0.4, 0.4)
    assert (found.forgetting, found.backward_transfer, found.forward_transfer) == (None, None, None)


def test_a_matrix_is_square():
    with pytest.raises(ValueError, match="as many columns"):
        summarise([[0.1, 0.2]])
    with pytest.raises(ValueError, match="as many columns"):
        summarise([])
    with pytest.raises(ValueError, match="2 untrained scores for 1"):
        summarise([[0.1]], untrained=[0.1, 0.2])
