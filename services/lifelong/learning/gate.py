"""Whether a candidate may take the place of its parent.

Three questions, each with a number of nats per token that may be exceeded by noise but not by damage:

1. Did what came in become less likely, although it was learnt?
2. Did any task that is held out become less likely than under the parent?
3. Did general text become less likely than under the parent, or than under the base? The parent alone is no measure:
   a hundred versions that each lose a little have lost a lot.

The verdict is a function of the losses alone, so that it comes out the same when a version is trained again.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from lifelong.contracts.samples import Sample
from lifelong.contracts.versions import Verdict

Losses = Mapping[str, float]
"""Nats per token by sample id."""


class GateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    new_tolerance_nats: Annotated[float, Meta(ge=0)] = 0.1
    """That the mean loss of the new samples may rise: what was known already has nowhere to fall."""
    held_out_tolerance_nats: Annotated[float, Meta(ge=0)] = 0.3
    """That the mean loss of a held-out task may rise in one version."""
    general_tolerance_nats: Annotated[float, Meta(ge=0)] = 0.3
    """That the mean loss of general text may rise in one version."""
    general_drift_nats: Annotated[float, Meta(ge=0)] = 1.5
    """That the mean loss of general text may lie above the base's, over all versions."""
    probes: str | None = None
    """A file of JSON lines with samples (``id``, ``task``, ``messages`` or ``text``) that must not become less likely;
    they are judged like held-out tasks."""
    held_out_ratio: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    """Of the samples that are examples of a task; what should be known is never held out."""
    held_out_after: Annotated[int, Meta(ge=0)] = 20
    """Samples of a task that must have been learnt before any of it is held out."""
    held_out_capacity: Annotated[int, Meta(ge=0)] = 16
    """Held-out samples that are judged, shared out among the tasks. They cost time in every version."""


class Evidence(msgspec.Struct, frozen=True):
    """``before``: under the parent; ``after``: under the candidate. Both have the same samples."""

    new_before: Losses
    new_after: Losses
    held_out_before: Losses
    held_out_after: Losses
    general_before: Losses
    general_after: Losses
    general_base: Losses


def judge(evidence: Evidence, held_out: Sequence[Sample], settings: GateSettings) -> Verdict:
    """The first reason to reject, or acceptance; with all the numbers either way.

    Args:
        held_out: the samples behind the held-out losses, for their tasks.
    """
    scores = {name: mean(losses) for name, losses in msgspec.structs.asdict(evidence).items() if losses}
    reasons = []

    def must_not_exceed(what: str, value: float, bound: float) -> None:
        # Written so that NaN, which is less than nothing, is rejected.
        if not value <= bound:
            reasons.append(f"{what}: {value:.3f}, at most {bound:.3f}")

    must_not_exceed(
        "new samples became less likely", scores["new_after"], scores["new_before"] + settings.new_tolerance_nats
    )
    for task, samples in sorted(_by_task(held_out).items()):
        before = mean({sample.id: evidence.held_out_before[sample.id] for sample in samples})
        after = mean({sample.id: evidence.held_out_after[sample.id] for sample in samples})
        scores |= {f"held_out_before:{task}": before, f"held_out_after:{task}": after}
        must_not_exceed(f"held-out task {task} became less likely", after, before + settings.held_out_tolerance_nats)
    if evidence.general_after:
        before, after, base = scores["general_before"], scores["general_after"], scores["general_base"]
        must_not_exceed("general text became less likely", after, before + settings.general_tolerance_nats)
        # A parent that is already beyond the bound must not block those that lead back.
        must_not_exceed("general text drifted from the base", after, max(base + settings.general_drift_nats, before))
    return Verdict(not reasons, "; ".join(reasons) or "nothing became less likely beyond tolerance", scores)


def mean(losses: Losses) -> float:
    return math.fsum(losses.values()) / len(losses)


def _by_task(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.task].append(sample)
    return found
