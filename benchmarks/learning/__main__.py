"""``python -m benchmarks.learning``: strategies learn streams, and of each run there is one JSON.

What has its JSON is not done again, so that a report can be made in several sittings; ``python -m
benchmarks.learning.report`` makes it. One run at a time, on all cores. Strategies of Avalanche are left out, with
a word, where it is not installed; asked for by name they are an error.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from benchmarks.learning import avalanche_run
from benchmarks.learning.avalanche_run import AvalancheMissingError
from benchmarks.learning.check import check
from benchmarks.learning.report import write
from benchmarks.learning.results import load, path_of, save
from benchmarks.learning.run import Result, Stream, run, settings_of
from benchmarks.learning.strategies import strategy_of
from benchmarks.learning.streams import FULL, QUICK, STREAMS, Size

from lifelong.contracts.samples import Sample
from lifelong.learning.anchor import BEGINNINGS, PROMPTS, make_anchors
from lifelong.model.base import load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.packaged import cache_folder
from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.trainer.precision import with_dtype

RESULTS = Path(__file__).with_name("results")
PLAN = {
    # The first ones are what is to be known first, should there be no time for all.
    "S1": (
        *("frozen", "blind-last", "blind-frequent", "naive", "default", "joint", "default-dark", "replay", "der"),
        *("ema", "default-no-skip", "all-directions", "ewc", "agem", "lwf", "olora", "naive-8", "naive-twice"),
        *("avalanche-replay", "avalanche-ewc"),
    ),
    "S1-blurry": ("blind-last", "blind-frequent", "naive", "default"),
    "S1-recurring": ("blind-last", "blind-frequent", "naive", "default"),
    "S1-poison": ("naive", "default", "default-ungated"),
    "S2": ("frozen", "naive", "default", "joint", "default-dark", "replay", "ewc"),
    "S3": (
        *("naive", "memory", "default", "default-memory", "default-dark", "default-fast", "default-late"),
        *("without-readings", "without-readings-memory"),
    ),
    "S2-long": ("frozen", "naive", "default"),
}
QUICK_PLAN = {
    "S1": ("frozen", "blind-last", "naive", "default"),
    "S1-blurry": ("blind-last", "naive"),
    "S1-recurring": ("naive",),
    "S1-poison": ("default",),
    "S2": ("frozen", "default"),
    "S2-long": ("frozen",),
    "S3": ("memory", "default"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("--streams", nargs="+", choices=list(STREAMS), default=list(PLAN), metavar="STREAM")
    parser.add_argument(
        "--strategies",
        nargs="+",
        type=_name,
        metavar="STRATEGY",
        help="by name, or with other settings of the trainer: default+recipe.dark_alpha=1",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, help=f"folder of the JSON files; {RESULTS}, or none if quick")
    parser.add_argument("--quick", action="store_true", help="small streams, one seed, checked for what must be so")
    parser.add_argument("--minutes", type=float, help="begin no run after so long")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            return _all(options, options.results or Path(folder), QUICK, QUICK_PLAN, options.seeds[:1])
    return _all(options, options.results or RESULTS, FULL, PLAN, options.seeds)


def _all(
    options: argparse.Namespace, folder: Path, size: Size, plan: Mapping[str, Sequence[str]], seeds: Sequence[int]
) -> int:
    began, commit = time.monotonic(), _commit()
    model, anchors = _line(ModelSettings())
    done: list[Result] = []
    # Seed by seed, so that what is there when time is up can be compared.
    for seed in seeds:
        for stream_name in options.streams:
            stream = None
            for strategy in options.strategies or plan[stream_name]:
                if options.minutes and time.monotonic() - began > options.minutes * 60:
                    print("time is up; the same command goes on from here")
                    return 0
                stream = stream or STREAMS[stream_name](size, seed)
                try:
                    done.append(_once(folder, stream, strategy, seed, model, anchors, commit))
                except AvalancheMissingError as error:
                    print(f"{stream_name} {strategy} {seed}: {error}", file=sys.stderr)
                    if options.strategies:
                        return 1
    if wrong := check(done):
        print("\n".join(wrong), file=sys.stderr)
        return 1
    if options.quick:
        write(done, folder / "report")
        print(f"{len(done)} runs, and what must be so is so")
    return 0


def _name(name: str) -> str:
    try:
        strategy_of(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name


def _once(
    folder: Path,
    stream: Stream,
    name: str,
    seed: int,
    model: ModelSettings,
    anchors: Sequence[Sample],
    commit: str,
) -> Result:
    strategy, stream_name = strategy_of(name), stream.name
    path = path_of(folder, stream_name, name, seed)
    if (result := load(path)) is not None and result.settings == settings_of(stream, strategy, seed, model):
        print(f"{stream_name} {name} {seed}: is there")
        return result
    tell = _teller(f"{stream_name} {name} {seed}")
    if strategy.avalanche:
        result = avalanche_run.run(stream, name, strategy, seed, model, tell)
    else:
        result = run(stream, name, strategy, seed, model, anchors, tell)
    save(path, msgspec.structs.replace(result, commit=commit))
    result = load(path) or result  # rounded, as it is compared later
    last = result.examinations[-1]
    print(
        f"\r\033[K{stream_name} {name} {seed}: {result.wall_seconds:.0f} s, {result.cpu_seconds:.0f} s of processor, "
        f"{result.num_tokens} tokens, general text {last.general_nats:.3f}"
    )
    return result


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[2]), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        is_changed = git("status", "--porcelain", "--untracked-files=no", "--", "services", "benchmarks/**/*.py")
        return git("rev-parse", "--short=7", "HEAD") + ("+" if is_changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""  # no git, or not a clone


def _teller(what: str) -> Callable[[str], None]:
    def tell(where: str) -> None:
        if sys.stdout.isatty():
            print(f"\r\033[K{what}: {where}", end="", flush=True)

    return tell


def _line(settings: ModelSettings) -> tuple[ModelSettings, Sequence[Sample]]:
    """The dtype that is faster here, and the base's own words: the same for all runs, kept for later ones."""
    of = hashlib.sha256(msgspec.json.encode((settings, PROMPTS, BEGINNINGS))).hexdigest()
    path = cache_folder() / "bench" / f"line-{of[:8]}.json"
    if not path.exists():
        model = with_dtype(settings, AdapterSettings())
        learner = AdapterLearner(load_base(model), AdapterSettings(), seed=0, max_tokens=512)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode((model, make_anchors(learner.base_answers, learner.base_texts))))
    return msgspec.json.decode(path.read_bytes(), type=tuple[ModelSettings, tuple[Sample, ...]])


if __name__ == "__main__":
    sys.exit(main())
