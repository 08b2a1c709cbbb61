"""Which tasks of a micro-batch are beside what contradicts them, before it is learnt (ADR 14)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from lifelong.contracts.samples import Sample
from lifelong.learning.gate import (
    Claim,
    GateSettings,
    Losses,
    are_of_one_hand,
    is_within,
    looks_wrong,
    of_company,
    together,
)
from lifelong.trainer.judging import Judging
from lifelong.trainer.kinds import is_single


def claims_of(
    new: Sequence[Sample],
    before: Losses,
    judging: Judging,
    settings: GateSettings,
    measured: Callable[[Sequence[Sample]], Losses],
) -> list[Claim]:
    """Of the tasks that look as if they contradicted, or are suspected; if one does or all together seem to, of all.

    Args:
        before: losses of ``new`` at their first step; those of the later steps are from after the first ones.
        measured: losses before anything was learnt, at least of these samples.
    """
    by_task: dict[str, list[Sample]] = {}
    for sample in new:
        if not is_single(sample):
            by_task.setdefault(sample.task, []).append(sample)

    looked_at = {task: judging.claim(task, by_task[task], before, judging.last_losses) for task in sorted(by_task)}
    known = [claim for claim in looked_at.values() if claim]

    def measure(task: str, *, is_suspected: bool = False) -> Claim | None:
        losses = measured([*by_task[task], *judging.of_task(task)])
        return judging.claim(task, by_task[task], losses, losses, is_suspected=is_suspected)

    to_measure = [
        task
        for task, claim in looked_at.items()
        if judging.is_suspected(task) or (claim and looks_wrong(claim, settings))
    ]
    # By half the size: of the later steps the losses are from after a step on what came first, wrong or not.
    if len(known) > 1 and not is_within(msgspec.structs.replace(together(known), is_suspected=True)):
        to_measure = list(looked_at)
    found = {task: claim for task in to_measure if (claim := measure(task))}
    if not are_of_one_hand(list(found.values()), settings):
        return list(found.values())
    for task in looked_at:
        narrow = found.get(task) or measure(task)
        if claim := of_company(narrow, measure(task, is_suspected=True), settings):
            found[task] = claim
    return [found[task] for task in sorted(found)]
