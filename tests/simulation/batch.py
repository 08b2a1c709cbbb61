"""Many seeds on all cores."""

from __future__ import annotations

import logging
import multiprocessing
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import msgspec

_REPLAYED_EVERY = 50
"""One seed of so many is run twice, to see that a seed decides everything."""
_SEEDS_PER_JOB = 10


class Outcome(msgspec.Struct, frozen=True):
    seed: int
    problems: list[str]
    hits: Counter[tuple[str, str]]
    num_points: int
    num_versions: int


def run_seeds(seeds: Sequence[int], num_processes: int) -> Iterator[Outcome]:
    """In the order in which they are done."""
    jobs = [seeds[start : start + _SEEDS_PER_JOB] for start in range(0, len(seeds), _SEEDS_PER_JOB)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_processes, len(jobs)), context, _begin) as pool:
        for future in as_completed([pool.submit(_run_some, job) for job in jobs]):
            yield from future.result()


def run_one(seed: int) -> Outcome:
    # Here, so that the parent of all workers need not load torch.
    from tests.simulation.run import run_seed

    try:
        result = run_seed(seed)
        problems = list(result.problems)
        if seed % _REPLAYED_EVERY == 0 and run_seed(seed).trace != result.trace:
            problems.append("run again, it goes another way")
    except Exception:
        return Outcome(seed, [traceback.format_exc()], Counter(), 0, 0)
    return Outcome(seed, problems, result.hits, result.num_points, result.num_versions)


def _begin() -> None:
    import torch

    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)


def _run_some(seeds: Sequence[int]) -> list[Outcome]:
    return [run_one(seed) for seed in seeds]
