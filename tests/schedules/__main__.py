"""``python -m tests.schedules --schedules N``: seeded faults against the real processes. Exit code 1: one failed."""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tests.schedules.run import Result, Runner
from tests.schedules.watch import Watch
from tests.schedules.world import World

from lifelong.local.processes import cores


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.schedules", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--schedules", type=int, default=10, help="how many seeds, from the first on")
    parser.add_argument("--per-world", type=int, default=50, help="schedules that one line of versions lives through")
    parser.add_argument("--worlds", type=int, default=1, help="side by side; they wait more than they work")
    parser.add_argument("--log", type=Path, help="write the report here too")
    parser.add_argument("--home", type=Path, help="for data and logs; without it a temporary folder")
    options = parser.parse_args()
    home = options.home or Path(tempfile.mkdtemp(prefix="lifelong-schedules-"))
    seeds = range(options.first, options.first + options.schedules)
    with _report(options.log) as files:
        ok = run_all(seeds, home, files, per_world=options.per_world, num_worlds=options.worlds)
    if ok and not options.home:
        shutil.rmtree(home)
    return 0 if ok else 1


def run_all(seeds: range, home: Path, files: Sequence[TextIO], *, per_world: int, num_worlds: int) -> bool:
    """Prints a line for each seed. After a failure the logs are kept, and the next seed gets a world of its own."""
    results: list[Result] = []
    started = time.monotonic()
    machine = f"{platform.machine()}, {cores()} cores, Python {platform.python_version()}"
    _say(files, f"schedules {seeds.start} to {seeds.stop - 1} on {machine}")
    left = deque(seeds)
    wrong: list[str] = []

    def live(number: int) -> None:
        lives = 0
        while left:
            lives += 1
            place = home / f"world-{number}-{lives}"
            with running(place) as runner:
                lived = list(_run_in(runner, left, per_world, files))
                results.extend(lived)
                if not any(result.problems for result in lived):
                    wrong.extend(_last_look(runner, files))
            shutil.rmtree(place, ignore_errors=True)

    with ThreadPoolExecutor(num_worlds) as pool:
        for done in [pool.submit(live, number) for number in range(num_worlds)]:
            done.result()
    _summarise(files, results, time.monotonic() - started)
    return not wrong and not any(result.problems for result in results)


def _run_in(runner: Runner, left: deque[int], most: int, files: Sequence[TextIO]) -> Iterator[Result]:
    """Up to so many schedules, or to the first that fails."""
    for _ in range(most):
        try:
            seed = left.popleft()
        except IndexError:
            return
        result = runner.run(seed)
        _say(files, result.line())
        yield result
        if result.problems:
            home = runner.world.home
            kept = keep_logs(home, home.with_name(f"failed-{seed}"))
            _say(files, f"      logs: {kept}; again: --first {seed} --schedules 1")
            return


def _last_look(runner: Runner, files: Sequence[TextIO]) -> list[str]:
    """All that a line has learnt, once more and in one go."""
    newest = runner.watch.store.newest()
    if newest is None:
        return []
    started = time.monotonic()
    found = runner.trained_again_from_the_base()
    verdict = "ok" if not found else "FAILED: " + "; ".join(found)
    seconds = time.monotonic() - started
    _say(
        files,
        f"      all {newest.number} versions of this line trained again from the base in {seconds:.0f} s  {verdict}",
    )
    return found


@contextmanager
def running(home: Path) -> Iterator[Runner]:
    """A world with its watch, ready for schedules."""
    with World(home) as world:
        runner = Runner(world, f"{int(time.time()):x}")
        with Watch(world, runner.on_step) as watch:
            runner.watch = watch
            yield runner


def keep_logs(home: Path, folder: Path) -> Path:
    """The logs of all processes, and all manifests."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(home / "logs", folder / "logs")
    for manifests in (home / "artifacts").glob("*/manifests"):
        shutil.copytree(manifests, folder / "manifests" / manifests.parent.name)
    return folder


def _summarise(files: Sequence[TextIO], results: list[Result], seconds: float) -> None:
    hits: Counter[tuple[str, str]] = Counter()
    for result in results:
        for fault, hit in zip(result.schedule.faults, result.hits, strict=True):
            hits[fault.kind, hit.rstrip("0123456789").rstrip("-")] += 1
    num_failed = sum(bool(result.problems) for result in results)
    _say(files, "")
    each = seconds / max(1, len(results))
    _say(files, f"{len(results)} schedules in {seconds:.0f} s, {each:.1f} s each; {num_failed} failed")
    _say(files, f"{time.process_time():.0f} s of them were the processor time of this program, without the processes")
    _say(files, f"{sum(r.num_events for r in results)} events, {sum(r.num_versions for r in results)} versions")
    for kind in sorted({kind for kind, _ in hits}):
        what = ", ".join(f"{number} {hit}" for (name, hit), number in sorted(hits.items()) if name == kind)
        _say(files, f"  {kind:16} {what}")


def _say(files: Sequence[TextIO], text: str) -> None:
    for file in files:
        print(text, file=file, flush=True)


@contextmanager
def _report(log: Path | None) -> Iterator[Sequence[TextIO]]:
    if log is None:
        yield [sys.stdout]
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        yield [sys.stdout, file]


if __name__ == "__main__":
    sys.exit(main())
