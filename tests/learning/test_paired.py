"""Paired tests against SciPy's and against their definition."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import scipy.stats

from lifelong.learning.paired import bootstrap, differences, permutation, sign_flip


def gauss(seed, number, mean):
    chance = random.Random(seed)
    return [chance.gauss(mean, 1) for _ in range(number)]


@pytest.mark.parametrize("seed", range(4))
def test_exact_p_is_scipys(seed):
    before, after = gauss(seed, 9, 0.0), gauss(100 + seed, 9, 0.5)
    reference = scipy.stats.permutation_test(
        (np.array(after), np.array(before)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
        alternative="greater",
    )
    values = [a - b for a, b in zip(after, before, strict=True)]
    assert sign_flip(values) == pytest.approx(reference.pvalue)


def test_by_hand():
    # Of the eight signs of 1, 2, 3 only +++ is as large as 6; with -1 also none but -++ and +++ reach 4.
    assert sign_flip([1.0, 2.0, 3.0]) == 1 / 8
    assert sign_flip([-1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([]) == 1.0
    assert sign_flip([0.1, 0.1, 0.1], above=0.1) == 1.0


@pytest.mark.parametrize("number", [10, 40])
def test_it_is_wrong_as_seldom_as_it_says(number):
    p = [sign_flip(gauss(seed, number, 0.0)) for seed in range(150)]
    # 5 % of 150 are 7.5, with a standard deviation of 2.7.
    assert sum(value <= 0.05 for value in p) <= 17
    assert 0.4 < sum(p) / len(p) < 0.6


@pytest.mark.parametrize("number", [10, 40])
def test_what_is_there_is_found(number):
    p = [sign_flip(gauss(seed, number, 1.5)) for seed in range(30)]
    assert sum(value <= 0.05 for value in p) >= 27


def test_drawn_signs_come_near_the_exact_value():
    values = gauss(7, 40, 0.25)
    t = scipy.stats.ttest_1samp(values, 0.0, alternative="greater").pvalue
    assert 0.01 < t < 0.5
    assert sign_flip(values) == pytest.approx(t, abs=0.03)
    assert sign_flip(values) == sign_flip(values)
    assert sign_flip(values, seed=1) != sign_flip(values)


def test_one_outlier_proves_nothing():
    assert sign_flip([50.0, *([0.0] * 9)]) == 0.5


@pytest.mark.parametrize(("num", "num_others"), [(3, 9), (2, 5), (6, 4)])
def test_p_of_two_groups_is_scipys(num, num_others):
    values, others = gauss(1, num, 0.8), gauss(2, num_others, 0.0)
    reference = scipy.stats.permutation_test(
        (np.array(values), np.array(others)),
        lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
        permutation_type="independent",
        vectorized=True,
        n_resamples=np.inf,
        alternative="greater",
    )
    assert permutation(values, others) == pytest.approx(reference.pvalue)


def test_p_of_two_large_groups_is_near_the_t_tests():
    values, others = gauss(3, 40, 0.3), gauss(4, 60, 0.0)
    t = scipy.stats.ttest_ind(values, others, alternative="greater").pvalue
    assert 0.01 < t < 0.5
    assert permutation(values, others) == pytest.approx(t, abs=0.03)
    assert permutation(values, others) == permutation(values, others)


def test_two_groups_by_hand():
    # Of the ten pairs of 1, 2, 3, 4, 5 one has a sum of 9, and two of at least 8.
    assert permutation([5.0, 4.0], [1.0, 2.0, 3.0]) == 1 / 10
    assert permutation([5.0, 3.0], [1.0, 2.0, 4.0]) == 2 / 10
    assert permutation([1.0, 1.0], [1.0, 1.0, 1.0]) == 1.0
    assert permutation([], [1.0]) == permutation([1.0], []) == 1.0


def test_alike_groups_are_told_apart_as_often_as_the_p_says():
    ps = [permutation(gauss(seed, 4, 0.0), gauss(1000 + seed, 9, 0.0)) for seed in range(400)]
    assert 8 <= sum(p <= 0.05 for p in ps) <= 34  # 20


def test_bounds_hold_the_mean_as_often_as_they_say():
    inside = 0
    for seed in range(100):
        lower, upper = bootstrap(gauss(seed, 30, 2.0), seed=seed)
        inside += lower <= 2.0 <= upper
    assert 86 <= inside <= 100


def test_bounds_are_scipys():
    values = np.array(gauss(3, 25, 0.0))
    reference = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0)
    )
    lower, upper = bootstrap(list(values))
    assert lower == pytest.approx(reference.confidence_interval.low, abs=0.03)
    assert upper == pytest.approx(reference.confidence_interval.high, abs=0.03)


def test_pairs_are_matched_by_id():
    assert differences({"b": 1.0, "a": 2.0}, {"a": 2.5, "b": 0.0}) == [0.5, -1.0]
    with pytest.raises(ValueError, match="2 samples were scored only once"):
        differences({"a": 1.0}, {"b": 1.0})


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="finite"):
        sign_flip([math.nan])
    with pytest.raises(ValueError, match="finite"):
        permutation([math.inf], [1.0])
    with pytest.raises(ValueError, match="nothing"):
        bootstrap([])
