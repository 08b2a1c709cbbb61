from __future__ import annotations

import pytest

from lifelong.local.processes import PROCESSES, thread_budget


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 8, 31, 64])
def test_the_threads_fit_the_cores(cores: int) -> None:
    budget = {name: thread_budget(name, cores) for name in ("trainer", "inference", "distiller")}
    assert min(budget.values()) == 1 if cores <= 4 else min(budget.values()) >= 1
    # The fewest that can be: one each for those whom somebody waits for; the distiller gives way to them.
    assert sum(budget.values()) == max(3, cores)
    assert budget["trainer"] + budget["inference"] == max(2, cores - 1)


def test_the_distiller_gives_way() -> None:
    niceness = {process.name: process.nice for process in PROCESSES}
    assert list(niceness) == ["collector", "trainer", "inference", "distiller"]
    assert niceness.pop("distiller") > max(niceness.values())
