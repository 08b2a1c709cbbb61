"""What must be so in any set of results, whatever the methods are worth."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from benchmarks.learning.run import Result


def check(results: Sequence[Result]) -> list[str]:
    """What is wrong, in words."""
    wrong = []
    for result in results:
        wrong += [f"{_name(result)}: {what}" for what in _alone(result)]
    together: dict[tuple[str, int], list[Result]] = defaultdict(list)
    for result in results:
        together[result.stream, result.seed].append(result)
    for same in together.values():
        first, *others = [result for result in same if not result.settings.get("guesses_by")] or same
        for other in others:
            # All begin as the same model, and are asked the same.
            if _beginning(other) != _beginning(first):
                wrong.append(f"{_name(other)} does not begin where {_name(first)} does")
    return wrong


def _alone(result: Result) -> list[str]:
    wrong = []
    num_samples = sum(step.num_samples for step in result.progress)
    if num_samples != result.settings["num_samples"]:
        wrong.append(f"{num_samples} samples were learnt of {result.settings['num_samples']}")
    for step in result.progress:
        for name, (total, weight) in step.measures.items():
            if not (math.isfinite(total) and total >= 0 and weight > 0):
                wrong.append(f"{name} is {total} / {weight}")
    if any(step.num_steps for step in result.progress) != result.settings["learns"]:
        wrong.append("no step was made, or a step by who should not learn")
    for examination in result.examinations:
        if not math.isfinite(examination.general_nats):
            wrong.append(f"general text is {examination.general_nats} after {examination.after!r}")
        for task, measures in [*examination.served.items(), *(examination.learning or {}).items()]:
            if any(not math.isfinite(value) for value in measures.values()):
                wrong.append(f"{task} is {measures} after {examination.after!r}")
            is_guess = bool(result.settings.get("guesses_by"))
            if not is_guess and measures.get("task_incremental", 1) < measures.get("class_incremental", 0):
                wrong.append(
                    f"{task}: fewer are right among its own labels than among all, after {examination.after!r}"
                )
    return wrong


def _beginning(result: Result) -> tuple[object, float]:
    return result.examinations[0].served, result.examinations[0].general_nats


def _name(result: Result) -> str:
    return f"{result.stream} {result.strategy} {result.seed}"
