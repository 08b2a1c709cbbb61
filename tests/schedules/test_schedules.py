"""Ten schedules, which have every main kind of fault between them; `make schedules N=200` runs more."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from tests.schedules.__main__ import run_all
from tests.schedules.burst import burst
from tests.schedules.faults import MAIN_KINDS, schedule

TEN = range(10)


@pytest.mark.e2e
@pytest.mark.timeout(1500)
def test_whatever_fails_every_event_counts_once(tmp_path: Path) -> None:
    report = io.StringIO()
    assert run_all(TEN, tmp_path, [report], per_world=len(TEN), num_worlds=1), report.getvalue()


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
