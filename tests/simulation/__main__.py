"""``python -m tests.simulation 1000``: so many seeds, on all cores; says which fail, and what was hit how often.

A seed that failed is run again by ``python -m tests.simulation 1 --first SEED --log FILE``.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.simulation.batch import Outcome, run_one, run_seeds
from tests.simulation.faults import PLACES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--log", type=Path, help="write here what happens in the runs, step by step")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0" or os.environ.get("OMP_NUM_THREADS") != "1":
        # Sets of strings have the same order in every process then.
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        environment = os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, check=False).returncode
    started = time.monotonic()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    outcomes = []
    if arguments.log is not None:
        logging.basicConfig(level=logging.INFO, filename=arguments.log, filemode="w", format="%(name)s %(message)s")
        found = map(run_one, seeds)
    else:
        found = run_seeds(seeds, arguments.processes)
    for outcome in found:
        outcomes.append(outcome)
        for problem in outcome.problems:
            _say(f"seed {outcome.seed}: {problem}")
    _show_hits(sum((outcome.hits for outcome in outcomes), Counter()))
    return _sum_up(outcomes, arguments.first, time.monotonic() - started)


def _sum_up(outcomes: list[Outcome], first: int, seconds: float) -> int:
    num_points, num_versions = sum(o.num_points for o in outcomes), sum(o.num_versions for o in outcomes)
    _say(
        f"{len(outcomes)} seeds from {first} on in {seconds:.0f} s: {num_points} points passed, "
        f"{num_versions} versions made"
    )
    failed = sorted(outcome.seed for outcome in outcomes if outcome.problems)
    _say(f"FAILED: {' '.join(map(str, failed))}" if failed else "all passed")
    return 1 if failed else 0


def _show_hits(hits: Counter[tuple[str, str]]) -> None:
    columns = sorted({what for what, place in hits if place != "world"})
    _say(f"\n{'hits':30}" + "".join(f"{what:>12}" for what in columns))
    for place in [f"{kind} {point}" for kind, points in PLACES.items() for point in points]:
        _say(f"{place:30}" + "".join(f"{hits[what, place] or '':>12}" for what in columns))
    world = ", ".join(f"{number} times {what}" for (what, place), number in sorted(hits.items()) if place == "world")
    _say(f"world: {world or 'nothing'}\n")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
