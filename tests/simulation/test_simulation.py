"""Some seeds of the simulation pass, the same seed is the same run, and a product with a safeguard taken out is caught.

Many seeds are run by ``make sim``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.run import run_seed


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    torch.set_num_threads(threads)


SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_fails_nothing_is_lost_or_counted_twice(seed: int) -> None:
    assert run_seed(seed).problems == []


def test_a_seed_decides_everything() -> None:
    first, again = run_seed(7), run_seed(7)
    assert (first.trace, first.num_points) == (again.trace, again.num_points)


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_a_product_without_a_safeguard_is_caught(mutation: Mutation) -> None:
    """Within the seeds that the whole product passes."""
    with mutation():
        caught = next((seed for seed in SEEDS if run_seed(seed).problems), None)
    assert caught is not None
