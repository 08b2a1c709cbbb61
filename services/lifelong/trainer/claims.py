"""Which tasks of a micro-batch are beside what contradicts them, before it is learnt (ADR 14)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lifelong.contracts.samples import Sample
from lifelong.learning.gate import Claim, GateSettings, Losses, contradicts, mean, of_one_hand
from lifelong.trainer.judging import Judging
from lifelong.trainer.kinds import is_single


def claims_of(
    new: Sequence[Sample],
    before: Losses,
    judging: Judging,
    settings: GateSettings,
    measured: Callable[[Sequence[Sample]], Losses],
) -> list[Claim]:
    """Of the tasks that look as if they contradicted, or are suspected; if one does, of all.

    Args:
        before: losses of ``new`` at their first step; those of the later steps are from after the first ones.
        measured: losses before anything was learnt, at least of these samples.
    """
    by_task: dict[str, list[Sample]] = {}
    for sample in new:
        if not is_single(sample):
            by_task.setdefault(sample.task, []).append(sample)

    def looks_likely(task: str) -> bool:
        looked_at = judging.claim(task, by_task[task], before, judging.last_losses)
        return not judging.is_suspected(task) and (looked_at is None or mean(looked_at.new) <= looked_at.bound)

    def measure(tasks: Sequence[str]) -> list[Claim]:
        found = []
        for task in tasks:
            losses = measured([*by_task[task], *judging.of_task(task)])
            found.append(judging.claim(task, by_task[task], losses, losses))
        return [claim for claim in found if claim]

    likely = [task for task in sorted(by_task) if looks_likely(task)]
    found = measure([task for task in sorted(by_task) if task not in likely])
    if any(contradicts(claim, settings) for claim in found):
        found = of_one_hand([*found, *measure(likely)], settings)
    return found
