"""What a schedule is. They are run by hand, `make schedules N=10`: one of ten now and then does not come to rest."""

from __future__ import annotations

from tests.schedules.burst import burst
from tests.schedules.faults import MAIN_KINDS, schedule

TEN = range(10)


def test_a_seed_always_means_the_same() -> None:
    for seed in range(50):
        assert schedule(seed, 12) == schedule(seed, 12)
        first, second = burst(seed, "a"), burst(seed, "a")
        assert [item.key for item in first.items] == [item.key for item in second.items]
        assert first.expected == second.expected


def test_ten_schedules_have_every_main_kind() -> None:
    kinds = {kind for seed in TEN for kind in schedule(seed, 12).kinds}
    # Two that are killed at once are more than one.
    assert kinds >= set(MAIN_KINDS) - {"kill"}
