"""``python -m benchmarks.learning.report``: tables and plots of the results that are there, for ``docs/learning``."""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.learning.results import load_all
from benchmarks.learning.run import Examination, Result
from benchmarks.learning.strategies import STRATEGIES, strategy_of
from benchmarks.learning.tasks import POISON

from lifelong.learning.forgetting import Summary, summarise

DOCS = Path(__file__).parents[2] / "docs" / "learning"
_RESULTS = Path(__file__).with_name("results")
# Student's t, two-sided 95 %, by the number of seeds.
_T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}

Runs = Mapping[str, Sequence[Result]]
"""By strategy; of each seed one."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=_RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    write(load_all(options.results), options.docs)


def write(results: Sequence[Result], folder: Path) -> None:
    """Raises ValueError: there are no results."""
    if not results:
        raise ValueError("there are no results yet: make bench-learning")
    folder.mkdir(parents=True, exist_ok=True)
    streams: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        streams[result.stream][result.strategy].append(result)
    parts = ["# Results\n\nMade by `make report` of the runs in `benchmarks/learning/results`; mean ± 95 % of seeds.\n"]
    for stream, runs in sorted(streams.items()):
        ordered = {name: runs[name] for name in sorted(runs, key=_place)}
        parts.append(f"## {stream}\n\n{_machine(ordered)}\n\n{table(stream, ordered)}\n")
        for plot in plots(stream, ordered, folder):
            parts.append(f"![{plot.stem}]({plot.name})\n")
    (folder / "results.md").write_text("\n".join(parts))


def table(stream: str, runs: Runs) -> str:
    columns: dict[str, Callable[[Result], float | None]]
    if stream == "S1-poison":
        columns = {
            "accuracy before the burst": lambda r: _accuracy_of_seen(r.examinations[-2]),
            "after it": lambda r: _accuracy_of_seen(r.examinations[-1]),
            "wrong samples refused": lambda r: _refused(r)[0] / int(str(r.settings["num_poisoned"])),
            "right samples refused": lambda r: _refused(r)[1],
        }
    elif stream.startswith("S1-"):
        columns = {
            "accuracy": lambda r: _in_the_end(r, "class_incremental"),
            "with the task known": lambda r: _in_the_end(r, "task_incremental"),
            "of what comes next": lambda r: prequential(r, "class_incremental"),
            "samples refused": lambda r: _refused(r)[1],
        }
    elif stream == "S1":
        columns = {
            "accuracy": lambda r: _summary(r, "class_incremental").average_accuracy,
            "with the task known": lambda r: _summary(r, "task_incremental").average_accuracy,
            "forgetting": lambda r: _summary(r, "class_incremental").forgetting,
            "forgetting, fast weights": lambda r: _fast_forgetting(r, "class_incremental"),
            "plasticity": lambda r: _summary(r, "class_incremental").plasticity,
            "anytime": lambda r: _summary(r, "class_incremental").anytime_average,
            "of what comes next": lambda r: prequential(r, "class_incremental"),
            "samples refused": lambda r: _refused(r)[1],
        }
    elif stream.startswith("S2"):
        columns = {
            "bits/byte, before it is learnt": lambda r: prequential(r, "bits_per_byte"),
            "of the frozen base's": lambda r: _of(r, runs, "frozen", lambda x: prequential(x, "bits_per_byte")),
            "in the end": lambda r: _in_the_end(r, "bits_per_byte"),
            "worst past domain": _worst_domain,
        }
    else:
        columns = {
            "right at once": at_once,
            "changed, new value": lambda r: _last(r, "changed"),
            "changed, old value still": lambda r: _last(r, "stale"),
            "new": lambda r: _last(r, "new"),
            "unchanged, of before": _kept,
        }
    columns |= {
        "general text, nats more": lambda r: r.examinations[-1].general_nats - r.examinations[0].general_nats,
        "KL from the base": lambda r: r.base_kl_nats,
        "tokens, of naive": lambda r: _of(r, runs, "naive", lambda x: x.num_tokens),
        "processor, of naive's steps": lambda r: _processor(r, runs),
    }
    rows = [["strategy", "seeds", *columns, "on", "commit"], ["---"] * (len(columns) + 4)]
    for name, results in runs.items():
        cells = [interval([v for r in results if (v := column(r)) is not None]) for column in columns.values()]
        made = [_each(result.machine["device"] for result in results), _each(result.commit for result in results)]
        rows.append([f"`{name}`", str(len(results)), *cells, *made])
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return lines + "\n\n" + "\n".join(f"- `{name}`: {strategy_of(name).what}" for name in runs)


def _place(name: str) -> tuple[int, str]:
    """Those with other settings come after the strategy itself."""
    return list(STRATEGIES).index(name.partition("+")[0]), name


def _each(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))


def interval(values: Sequence[float]) -> str:
    """Mean ± half the width of its 95 % interval by Student's t; the mean alone of one."""
    if not values or any(math.isnan(value) for value in values):
        return ""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    half = _T95.get(len(values), 1.96) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.3f} ± {half:.3f}"


def prequential(result: Result, measure: str) -> float:
    """Over the whole stream, each sample before it was learnt."""
    shares = [step.measures[measure] for step in result.progress]
    return sum(total for total, _ in shares) / sum(weight for _, weight in shares)


def matrix(result: Result, measure: str, *, fast: bool = False) -> list[list[float]]:
    """R[i][j] after phase i on task j. What was not examined, tasks yet to come, counts as worse than anything:
    it is in no sum, and no task's best. Of a joint run, which has one phase, all rows are the same."""
    tasks = list(result.examinations[0].served)
    rows = [_row(examination, tasks, measure, fast) for examination in result.examinations[1:]]
    return rows if len(rows) == len(tasks) else [rows[-1]] * len(tasks)


def _row(examination: Examination, tasks: Iterable[str], measure: str, fast: bool) -> list[float]:
    scores = examination.learning if fast and examination.learning is not None else examination.served
    return [scores.get(task, {}).get(measure, -math.inf) for task in tasks]


def _summary(result: Result, measure: str, *, fast: bool = False) -> Summary:
    untrained = _row(result.examinations[0], list(result.examinations[0].served), measure, False)
    return summarise(matrix(result, measure, fast=fast), untrained)


def _fast_forgetting(result: Result, measure: str) -> float | None:
    if result.examinations[0].learning is None:
        return None
    return _summary(result, measure, fast=True).forgetting


def _in_the_end(result: Result, measure: str) -> float:
    return statistics.fmean(scores[measure] for scores in result.examinations[-1].served.values())


def _accuracy_of_seen(examination: Examination) -> float:
    return statistics.fmean(scores["class_incremental"] for scores in examination.served.values())


def _refused(result: Result) -> tuple[int, int]:
    """Number of wrong samples, and of right ones, that the gate names."""
    names = [name for step in result.progress for name in step.refused]
    num_wrong = sum(name.startswith(POISON) for name in names)
    return num_wrong, len(names) - num_wrong


def _worst_domain(result: Result) -> float | None:
    """Bits per byte in the end over those right after a domain was first learnt; the worst of them."""
    if result.settings["is_joint"]:
        return None
    last, after = result.examinations[-1], {}
    for examination in result.examinations[1:]:
        after.setdefault(examination.after, examination)
    return max(
        last.served[domain]["bits_per_byte"] / examination.served[domain]["bits_per_byte"]
        for domain, examination in after.items()
    )


def at_once(result: Result) -> float | None:
    """Of what should be known as soon as it was told, the share that is."""
    shares = [step.at_once["exact"] for step in result.progress if step.at_once]
    return sum(total for total, _ in shares) / sum(weight for _, weight in shares) if shares else None


def _last(result: Result, task: str) -> float:
    return result.examinations[-1].served[task]["exact"]


def _kept(result: Result) -> float | None:
    before = result.examinations[-2].served["kept"]["exact"]
    return _last(result, "kept") / before if before else None


def _of(result: Result, runs: Runs, other: str, value: Callable[[Result], float]) -> float | None:
    """In proportion to another strategy's, of the same seed."""
    same = [run for run in runs.get(other, ()) if run.seed == result.seed]
    return value(result) / value(same[0]) if same else None


def _processor(result: Result, runs: Runs) -> float | None:
    """All the processor time of learning and judging, over that of naive's steps alone. On two kinds of machine seconds
    say nothing, and where a GPU does the work those of the processor do not either."""
    if result.machine["device"] != "cpu":
        return None
    alike = [run for run in runs.get("naive", ()) if run.machine == result.machine]
    return _of(result, {"naive": alike}, "naive", _processor_seconds)


def _processor_seconds(result: Result) -> float:
    steps_only = result.step_seconds / result.wall_seconds if result.strategy == "naive" else 1.0
    return result.cpu_seconds * steps_only


def _machine(runs: Runs) -> str:
    kinds = {
        (*sorted(result.machine.items()), ("dtype", _dtype(result))) for results in runs.values() for result in results
    }
    return "; ".join(", ".join(f"{key} {value}" for key, value in kind) for kind in sorted(kinds))


def _dtype(result: Result) -> str:
    model = result.settings.get("model")
    return str(model["dtype"]) if isinstance(model, dict) else "not known"


def plots(stream: str, runs: Runs, folder: Path) -> list[Path]:
    """What is served, along the stream: the mean over the tasks seen so far, and what comes next."""
    if stream == "S1-poison":
        return []  # What comes next is wrong there.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    measure = {"S2": "bits_per_byte", "S3": "exact"}.get(stream.partition("-")[0], "class_incremental")
    along = Figure(figsize=(8, 4.5), layout="constrained")
    axes = along.subplots()
    for name, results in runs.items():
        if "+" in name:
            continue  # With other settings: too many to be told apart.
        curves = [_curve(result, measure) for result in results]
        length = min(map(len, curves))
        axes.plot([statistics.fmean(curve[i] for curve in curves) for i in range(length)], label=name)
    axes.set(
        xlabel="micro-batches",
        ylabel=f"{measure.replace('_', ' ')}, mean of the last 10",
        title=f"{stream}, before it is learnt",
    )
    axes.legend(fontsize="small")
    path = folder / f"{stream}-prequential.svg"
    with rc_context({"svg.hashsalt": stream}):  # The same results, the same file.
        along.savefig(path, metadata={"Date": None})
    return [path]


def _curve(result: Result, measure: str, window: int = 10) -> list[float]:
    shares = [step.measures[measure] for step in result.progress]
    return [
        sum(total for total, _ in shares[max(0, i - window + 1) : i + 1])
        / sum(weight for _, weight in shares[max(0, i - window + 1) : i + 1])
        for i in range(len(shares))
    ]


if __name__ == "__main__":
    main()
