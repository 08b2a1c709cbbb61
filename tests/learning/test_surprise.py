"""Half by surprise, half by chance."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from tests.learning.toy import toy_sample

from lifelong.learning.replay import BalancedReservoir, ReplayState
from lifelong.learning.surprise import SurpriseReservoir, SurpriseState


def filled(capacity, losses, *, seed=0, task=lambda number: "toy"):
    replay = SurpriseReservoir(capacity, seed)
    for number, loss in enumerate(losses):
        sample = toy_sample(number, task=task(number))
        replay.saw({sample.id: loss})
        replay.add(sample)
    return replay


def numbers(ids):
    return sorted(int(key.split("-")[1]) for key in ids)


def test_one_half_are_the_most_surprising():
    losses = [(number * 37) % 101 / 10 for number in range(60)]
    replay = filled(20, losses)
    most = sorted(range(60), key=lambda number: -losses[number])[:10]
    assert numbers(replay.state().surprising) == sorted(most)


def test_losses_of_a_whole_micro_batch_are_told_at_once():
    replay, samples = SurpriseReservoir(4, 0), [toy_sample(number) for number in range(4)]
    replay.saw({"0-0-0": 1.0, "0-1-0": 2.0, "0-2-0": 10.0, "0-3-0": 9.0})
    for sample in samples:
        replay.add(sample)
    assert numbers(replay.state().surprising) == [2, 3]


def test_the_other_half_is_a_reservoir_whatever_the_losses():
    losses = [(number * 37) % 101 / 10 for number in range(60)]
    by_chance = BalancedReservoir(10, 3)
    for number in range(60):
        by_chance.add(toy_sample(number))
    assert list(filled(20, losses, seed=3).state().by_chance) == [sample.id for sample in by_chance.samples]


def test_a_task_of_high_entropy_does_not_take_the_whole_half():
    replay = filled(
        12, [5.0 if number % 2 else 0.1 * (number % 7) for number in range(80)], task=lambda number: "ab"[number % 2]
    )
    tasks = Counter(sample.task for sample in replay.samples if sample.id in replay.state().surprising)
    assert tasks == {"a": 3, "b": 3}


def test_noise_has_at_most_half_of_what_is_drawn():
    """A tenth are wrong labels, which are the most surprising: their share by chance, and no more than half beyond."""
    wrong = {number for number in range(200) if number % 10 == 3}
    replay = filled(20, [9.0 if number in wrong else 1.0 for number in range(200)])
    drawn = [sample for version in range(100) for sample in replay.draw(4, version=version)]
    share = sum(number in wrong for number in numbers(sample.id for sample in drawn)) / len(drawn)
    assert 0.4 < share < 0.7


def test_half_of_each_draw_is_surprising_and_none_comes_twice():
    replay = filled(20, [number / 10 for number in range(40)])
    surprising = set(replay.state().surprising)
    for version in range(20):
        drawn = [sample.id for sample in replay.draw(6, version=version)]
        assert len(set(drawn)) == 6
        assert set(drawn[:3]) <= surprising
        assert set(drawn[3:]) <= set(replay.state().by_chance)
    assert replay.draw(6, version=1) == replay.draw(6, version=1)
    assert replay.draw(6, version=1, step=1) != replay.draw(6, version=1)
    assert len(replay.draw(1000, version=1)) == len(replay) == len(replay.samples)


def test_what_is_known_by_now_makes_room():
    replay = filled(4, [5.0, 4.0])
    replay.saw({"0-0-0": 0.1})
    for number, loss in ((2, 3.0), (3, 2.0)):
        replay.saw({toy_sample(number).id: loss})
        replay.add(toy_sample(number))
    assert numbers(replay.state().surprising) == [1, 2]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_no_surprise(loss):
    replay = filled(2, [loss, 0.5])
    assert numbers(replay.state().surprising) == [1]


def test_resumed_is_uninterrupted_through_json():
    whole = filled(8, [number % 5 for number in range(30)], task=lambda number: "ab"[number % 2])
    resumed = SurpriseReservoir(8, 0)
    state = msgspec.json.decode(msgspec.json.encode(whole.state()), type=SurpriseState)
    resumed.load(state, list(whole.samples))
    for number in range(30, 60):
        for replay in (whole, resumed):
            replay.saw({toy_sample(number).id: number % 7, replay.samples[0].id: 0.2})
            replay.add(toy_sample(number))
    assert resumed.samples == whole.samples
    assert resumed.state() == whole.state()
    assert resumed.draw(5, version=9) == whole.draw(5, version=9)


def test_what_is_removed_leaves_nothing():
    replay = filled(8, range(20))
    gone = replay.samples[-1].id
    assert replay.remove(lambda sample: sample.id == gone) == [gone]
    assert gone not in msgspec.json.encode(replay.state()).decode()
    assert all(sample.id != gone for sample in replay.draw(100, version=1))


def test_a_reservoir_of_another_kind_is_taken_over():
    replay = SurpriseReservoir(8, 0)
    replay.load(ReplayState({"toy": 9}), [toy_sample(number) for number in range(6)])
    assert len(numbers(replay.state().by_chance)) == 4
    assert replay.state().surprising == ()


def test_a_smaller_capacity_keeps_the_most_surprising():
    whole = filled(8, range(20))
    smaller = SurpriseReservoir(4, 0)
    smaller.load(whole.state(), whole.samples)
    assert numbers(smaller.state().surprising) == [18, 19]


def test_a_state_without_its_samples_is_refused():
    whole = filled(8, [1.0, 2.0])
    with pytest.raises(ValueError, match="2 samples of the state are not there, as 0-0-0"):
        SurpriseReservoir(8, 0).load(whole.state(), [])


def test_a_capacity_of_nothing_keeps_nothing():
    replay = filled(0, [1.0, 2.0])
    assert replay.draw(3, version=1) == replay.samples == []
