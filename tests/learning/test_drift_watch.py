"""A loss that rises raises the share of the old; a quiet one, or one that falls, does not."""

from __future__ import annotations

import random

import msgspec
import pytest

from lifelong.learning.drift_watch import MAX_WATCHED, DriftSettings, DriftState, DriftWatch

DETECTORS = ["adwin", "page-hinkley"]


def losses(mean: float, number: int, seed: int = 0) -> list[float]:
    draw = random.Random(seed)
    return [max(0.0, draw.gauss(mean, 0.5)) for _ in range(number)]


def watch(watched: DriftWatch, values: list[float], version: int = 1, task: str = "mail") -> int:
    return sum(watched.saw(task, value, version) for value in values)


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_rise_is_drift_and_raises_replay_for_some_versions(detector):
    watched = DriftWatch(DriftSettings(detector=detector, replay_factor=2.5, versions=3))
    assert watch(watched, losses(1.0, 300)) == 0
    assert watched.replay_samples(4, 2) == 4
    num_drifts = watch(watched, losses(2.5, 100, 1), version=7)
    assert num_drifts == watched.num_seen > 0
    assert [watched.replay_samples(4, version) for version in (8, 9, 10, 11)] == [10, 10, 10, 4]


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_fall_is_what_learning_is_for(detector):
    watched = DriftWatch(DriftSettings(detector=detector))
    assert watch(watched, losses(3.0, 300) + losses(1.0, 300, 1)) == 0


def test_without_a_detector_nothing_is_seen():
    watched = DriftWatch(DriftSettings())
    assert watch(watched, losses(1.0, 300) + losses(5.0, 300)) == 0
    assert watched.state() == DriftState()
    assert watched.replay_samples(4, 1) == 4


def test_by_task_another_mixture_is_no_drift_and_by_line_it_is():
    found = {}
    for by in ("line", "task"):
        watched = DriftWatch(DriftSettings(detector="adwin", by=by))
        easy, hard = losses(0.5, 600), losses(4.0, 300, 1)
        num = watch(watched, easy[:300], task="easy") + watch(watched, hard[:20], task="hard")
        num += watch(watched, hard[20:], task="hard")
        found[by] = num
    assert found["line"] > 0
    assert found["task"] == 0


def test_many_tasks_are_watched_together():
    watched = DriftWatch(DriftSettings(detector="page-hinkley", by="task"))
    for number in range(3 * MAX_WATCHED):
        watched.saw(f"task {number}", 1.0, 1)
    assert len(watched.state().page_hinkley) == MAX_WATCHED + 1


def test_no_number_is_passed_over():
    watched = DriftWatch(DriftSettings(detector="adwin"))
    assert not watched.saw("mail", float("inf"), 1)
    assert watched.state() == DriftState()


@pytest.mark.parametrize("detector", DETECTORS)
def test_restored_at_any_time_it_sees_the_same(detector):
    settings = DriftSettings(detector=detector, by="task")
    stream = losses(1.0, 150) + losses(3.0, 60, 1)
    whole, found, restored = DriftWatch(settings), [], []
    other = DriftWatch(settings)
    for version, value in enumerate(stream):
        found.append(whole.saw("mail", value, version))
        restored.append(other.saw("mail", value, version))
        state = msgspec.json.decode(msgspec.json.encode(other.state()), type=DriftState)
        other = DriftWatch(settings)
        other.load(state)
    assert restored == found
    assert any(found)
    assert other.state() == whole.state()


def test_with_other_settings_it_begins_anew():
    watched = DriftWatch(DriftSettings(detector="adwin"))
    watch(watched, losses(1.0, 300) + losses(3.0, 100))
    other = DriftWatch(DriftSettings(detector="page-hinkley"))
    other.load(watched.state(), anew=True)
    assert other.state() == DriftState(num_seen=watched.num_seen)
    assert watched.num_seen > 0
