"""Which old samples are kept, and which are drawn."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from lifelong.learning.methods import REPLAYS
from lifelong.learning.replay import BalancedReservoir, Reservoir, randbelow


def test_every_sample_is_kept_with_the_same_probability(new_sample):
    kept: Counter[str] = Counter()
    samples = [new_sample(number) for number in range(40)]
    num_seeds = 400
    for seed in range(num_seeds):
        replay = Reservoir(10, seed)
        for sample in samples:
            replay.add(sample)
        assert len(replay) == 10
        kept.update(sample.id for sample in replay.samples)
    # Expected 100 each, standard deviation √(400 · ¼ · ¾) = 8.7: five of them.
    assert min(kept[sample.id] for sample in samples) > 56
    assert max(kept.values()) < 144


def test_balanced_keeps_a_rare_task_whole(new_sample):
    replay = BalancedReservoir(10, seed=3)
    for number in range(200):
        replay.add(new_sample(number, task="rare" if number % 50 == 7 else "common"))
    tasks = Counter(sample.task for sample in replay.samples)
    assert tasks == {"rare": 4, "common": 6}


def test_balanced_shares_out_evenly(new_sample):
    replay = BalancedReservoir(9, seed=3)
    for number in range(300):
        replay.add(new_sample(number, task=("a", "a", "a", "a", "b", "c")[number % 6]))
    assert Counter(sample.task for sample in replay.samples) == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize("name", sorted(REPLAYS))
def test_resumed_is_uninterrupted(name, new_sample):
    samples = [new_sample(number, task="ab"[number % 2]) for number in range(60)]
    whole = REPLAYS[name](8, 1)
    for sample in samples[:30]:
        whole.add(sample)
    resumed = REPLAYS[name](8, 1)
    resumed.load(whole.state(), list(whole.samples))
    for sample in samples[30:]:
        whole.add(sample)
        resumed.add(sample)
    assert resumed.samples == whole.samples
    assert resumed.draw(3, version=7) == whole.draw(3, version=7)


def test_draws_depend_on_seed_version_and_step_alone(new_sample):
    replay = Reservoir(50, 0)
    for number in range(50):
        replay.add(new_sample(number))
    first = replay.draw(5, version=1)
    assert replay.draw(5, version=1) == first
    assert replay.draw(5, version=2) != first
    assert replay.draw(5, version=1, step=1) != first
    assert len({sample.id for sample in first}) == 5
    assert len(replay.draw(1000, version=1)) == 50


def test_what_is_removed_is_not_drawn(new_sample):
    replay = Reservoir(50, 0)
    for number in range(10):
        replay.add(new_sample(number, user="ann" if number < 4 else None))
    assert replay.remove(lambda sample: sample.user == "ann") == [f"0-{number}-0" for number in range(4)]
    assert {sample.user for sample in replay.draw(50, version=1)} == {None}


def test_a_capacity_of_nothing_keeps_nothing(new_sample):
    replay = Reservoir(0, 0)
    replay.add(new_sample(1))
    assert replay.draw(3, version=1) == []


def test_randbelow_is_uniform_and_the_same_for_ever():
    counts = Counter(randbelow(4, "key", number) for number in range(4000))
    assert all(850 < counts[value] < 1150 for value in range(4))
    assert [randbelow(1000, 0, 1, "x", turn) for turn in range(4)] == [842, 524, 934, 602]


def test_a_smaller_buffer_keeps_late_ones_as_well_as_early_ones(new_sample):
    large, small = Reservoir(200, 0), Reservoir(100, 0)
    for number in range(150):
        large.add(new_sample(number))
    small.load(large.state(), large.samples)
    assert len(small) == 100
    order = {sample.id: place for place, sample in enumerate(large.samples)}
    places = [order[sample.id] for sample in small.samples]
    assert places == sorted(places)
    assert 20 < sum(place >= 100 for place in places) < 47


def test_a_smaller_balanced_buffer_is_balanced(new_sample):
    large, small = BalancedReservoir(200, 0), BalancedReservoir(60, 0)
    for number in range(150):
        large.add(new_sample(number, task="early" if number < 130 else "late"))
    small.load(large.state(), large.samples)
    assert Counter(sample.task for sample in small.samples) == {"early": 40, "late": 20}


def filled(new_sample, num=20, **fields):
    replay = BalancedReservoir(50, 0)
    for number in range(num):
        replay.add(new_sample(number, **fields))
    return replay


def test_half_of_what_is_drawn_should_be_known_and_is_not(new_sample):
    replay = filled(new_sample, until_known=True)
    replay.note_known({f"0-{number}-0": 0.5 if number < 3 else 0.05 for number in range(20)}, 0.1)
    lapsed = {"0-0-0", "0-1-0", "0-2-0"}
    drawn = [[sample.id for sample in replay.draw(4, version=1, step=step)] for step in range(40)]
    assert all(set(ids[:2]) <= lapsed and len(set(ids)) == 4 for ids in drawn)
    assert {ids[0] for ids in drawn} == lapsed
    assert len({name for ids in drawn for name in ids}) == 20
    replay.note_known({"0-0-0": 0.01, "0-1-0": 0.02}, 0.1)
    assert [replay.draw(4, version=1, step=step)[0].id for step in range(5)] == ["0-2-0"] * 5
    assert len(replay.draw(1, version=1)) == 1
    assert "0-2-0" not in [replay.draw(4, version=1, step=step, known={"0-2-0"})[0].id for step in range(5)]


def test_what_is_no_fact_does_not_lapse_and_is_drawn_as_by_chance(new_sample):
    replay, plain = filled(new_sample), Reservoir(50, 0)
    for number in range(20):
        plain.add(new_sample(number))
    replay.note_known({f"0-{number}-0": 9.0 for number in range(20)}, 0.1)
    assert replay.state().lapsed is msgspec.UNSET
    assert replay.draw(4, version=3, step=2) == plain.draw(4, version=3, step=2)


def test_what_lapsed_is_part_of_the_state(new_sample):
    replay, other = filled(new_sample, until_known=True), BalancedReservoir(50, 0)
    replay.note_known({"0-3-0": 2.0, "0-4-0": float("nan"), "0-5-0": 1.0, "gone": 1.0}, 0.1)
    assert replay.state().lapsed == ("0-3-0", "0-4-0", "0-5-0")
    replay.remove(lambda sample: sample.id == "0-5-0")
    assert replay.state().lapsed == ("0-3-0", "0-4-0")
    other.load(replay.state(), replay.samples)
    assert other.state() == replay.state()
    assert other.draw(4, version=7) == replay.draw(4, version=7)
