"""Drift detectors: their window against all the numbers, no false alarms, and prompt ones."""

from __future__ import annotations

import math
import random
import statistics

import msgspec
import pytest

from lifelong.learning.drift import Adwin, AdwinState, PageHinkley, PageHinkleyState


def stream(seed, *parts):
    """(number, mean) for each part, of standard deviation 1."""
    chance = random.Random(seed)
    return [chance.gauss(mean, 1) for number, mean in parts for _ in range(number)]


def first_alarm(detector, values, start):
    return next((i - start for i, value in enumerate(values) if detector.update(value) and i >= start), math.inf)


def test_the_window_is_the_newest_numbers_with_their_mean():
    adwin, values = Adwin(delta=1e-9), stream(0, (1000, 0.0))
    for number, value in enumerate(values, 1):
        adwin.update(value)
        assert adwin.width == number
    assert adwin.mean == pytest.approx(statistics.fmean(values))


def test_buckets_are_as_few_as_logarithms_and_know_their_squares():
    adwin, values = Adwin(delta=1e-9), stream(1, (777, 3.0))
    for value in values:
        adwin.update(value)
    rows = adwin.state().rows
    assert sum(map(len, rows)) <= 6 * math.ceil(math.log2(777))
    newest_first = list(reversed(values))
    at = 0
    for i, row in enumerate(rows):
        for total, squares in row:
            part = newest_first[at : at + 2**i]
            at += 2**i
            assert total == pytest.approx(math.fsum(part))
            assert squares == pytest.approx(len(part) * statistics.pvariance(part), abs=1e-9)
    assert at == 777


@pytest.mark.parametrize("make", [Adwin, PageHinkley])
def test_noise_is_no_drift(make):
    false_alarms = sum(sum(map(make().update, stream(seed, (3000, 0.0)))) for seed in range(10))
    assert false_alarms <= 1


@pytest.mark.parametrize(
    ("make", "bound"),
    [(Adwin, 140), (PageHinkley, 110)],
)
def test_half_a_standard_deviation_is_seen_soon(make, bound):
    delays = [first_alarm(make(), stream(seed, (1000, 0.0), (400, 0.5)), 1000) for seed in range(21)]
    assert statistics.median(delays) < bound
    assert max(delays) < 400


def test_a_large_step_is_seen_at_once_and_the_window_starts_there():
    adwin = Adwin()
    values = stream(3, (500, 0.0), (100, 4.0))
    delay = first_alarm(adwin, values, 500)
    assert delay < 16
    adwin = Adwin()
    for value in values:
        adwin.update(value)
    assert 80 <= adwin.width <= 120
    assert adwin.mean == pytest.approx(4.0, abs=0.5)


def test_page_hinkley_by_hand():
    """Zeros, then ones: with the mean at 1/(n+1) times the ones so far."""
    detector, threshold = PageHinkley(threshold=3.0, delta=0.1, fading=1.0, min_seen=1), 3.0
    values = [0.0] * 10 + [1.0] * 10
    total, mean, least = 0.0, 0.0, 0.0
    expected = None
    for number, value in enumerate(values, 1):
        mean += (value - mean) / number
        total += value - mean - 0.1
        least = min(least, total)
        if total - least > threshold:
            expected = number
            break
    found = [detector.update(value) for value in values[:expected]]
    assert found == [False] * (expected - 1) + [True]
    assert detector.state() == PageHinkleyState()


def test_page_hinkley_looks_only_where_it_is_told():
    rising, falling = stream(4, (500, 0.0), (300, 2.0)), stream(4, (500, 0.0), (300, -2.0))
    for values, sees in ((rising, {"rise"}), (falling, {"fall"})):
        for kind in ("rise", "fall"):
            detector = PageHinkley(rise=kind == "rise", fall=kind == "fall")
            assert any(detector.update(value) for value in values) == (kind in sees)


@pytest.mark.parametrize(("make", "kind"), [(Adwin, AdwinState), (PageHinkley, PageHinkleyState)])
def test_resumed_is_uninterrupted_through_json(make, kind):
    values = stream(5, (300, 0.0), (200, 1.0))
    whole, resumed = make(), make()
    for value in values[:250]:
        whole.update(value)
    resumed.load(msgspec.json.decode(msgspec.json.encode(whole.state()), type=kind))
    assert [whole.update(value) for value in values[250:]] == [resumed.update(value) for value in values[250:]]
    assert msgspec.json.encode(whole.state()) == msgspec.json.encode(resumed.state())


@pytest.mark.parametrize("make", [Adwin, PageHinkley])
def test_only_finite_numbers(make):
    with pytest.raises(ValueError, match="finite"):
        make().update(math.nan)
