"""Whether a candidate may take the place of its parent.

1. What came in must not have become less likely, although it was learnt.
2. Of no task what is held out, recently or long ago, and no probe, may become less likely than it was; for tasks of
   which hardly anything came in the tolerance is larger, since replay brings them back.
3. Where answers of a task are known well, what comes in with them must not be much less likely than what is held out
   with the same answers, before it is learnt: of each task, and of all that came together. Neither has been seen, so as
   long as nothing has changed one is as likely as the other. Wrong labels are seen by this in the first micro-batch; by
   the harm they do, only some versions later.
4. Nor may general text, than it was or than under the base: a hundred versions that each lose a little lose a lot.

*Than it was*: than when it was judged last, and than it has been for a while (a slow mean over the versions that judged
it). The first finds a blow, the second what is lost in small steps.

To judge all of it for every version would cost more than to learn. So a candidate is first *looked at* with a few of
all that is held out, others each time, and where these have become less likely beyond the tolerance, it is *put to the
test*: everything that is held out of that kind is scored under the candidate and under the parent. It is rejected where

* the mean is above what it was by more than the tolerance, and
* it is above the parent's, and by the paired test (``paired.sign_flip``) that is not chance at ``significance``.

The first is a statement about size, the second about certainty: an effect that is certain and small does no harm, one
that is large and uncertain is most often noise. The test is against 0 and not against the tolerance: the latter would
let through whatever is only probably too much. Where so few pairs are there that no difference could be significant
(fewer than log₂ 1/significance, 5 at 0.05) the size alone decides about new samples and probes, and nothing is said of
what is held out: of three samples out of the stream one may always go astray. A parent that is already beyond the
tolerance does not block whoever does not make it worse. A loss that is no finite number rejects.

The verdict is a function of the losses alone, so that it comes out the same when a version is trained again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from lifelong.contracts.versions import Verdict, finite
from lifelong.learning.paired import differences, permutation, sign_flip

Losses = Mapping[str, float]
"""Nats per token by sample id."""

GENERAL = "general"
_TOGETHER = 1.5
"""Power of the significance for all tasks of a micro-batch together, which is one more question: a thousandth where a
task takes a hundredth."""


class GateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    new_tolerance_nats: Annotated[float, Meta(ge=0)] = 0.3
    """That the mean loss of the new samples may rise: what was known already has nowhere to fall."""
    held_out_tolerance_nats: Annotated[float, Meta(ge=0)] = 0.2
    """That the mean loss of probes, and of what is held out of a task that is a quarter of the micro-batch or more, may
    lie above what it was."""
    other_tasks_tolerance_nats: Annotated[float, Meta(ge=0)] = 1.5
    """The same of all other tasks, if it is more: a new one costs the earlier ones so much until replay has brought
    them back. Wrong labels of a task harm the task itself."""
    contradiction_nats: Annotated[float, Meta(ge=0)] = 0.8
    """That the mean loss of the new samples of a task may lie above that of what is held out of it with the same
    answers, before they are learnt. What is more contradicts it; half as much does once something has."""
    contradiction_significance: Annotated[float, Meta(gt=0, le=1)] = 0.01
    """Probability of chance up to which it does. It is asked of every task in every micro-batch, and none of what came
    may be wrong in all of them."""
    known_nats: Annotated[float, Meta(ge=0)] = 1.0
    """Up to this mean loss of what is held out with an answer that answer is known well enough to be contradicted.
    0: nothing is ever contradicted."""
    general_tolerance_nats: Annotated[float, Meta(ge=0)] = 0.3
    """That the mean loss of general text may lie above what it was."""
    general_drift_nats: Annotated[float, Meta(ge=0)] = 1.5
    """That the mean loss of general text may lie above the base's, over all versions."""
    significance: Annotated[float, Meta(gt=0, le=1)] = 0.05
    """Probability of chance up to which a loss that rose counts. 1: the tolerances alone decide; of what contradicts,
    ``contradiction_significance`` does the same."""
    held_out_ratio: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    """Of the samples that are examples of a task; and, while there is room, two of each of its labels: answers that
    were learnt ten times. What should be known is never held out. 0: nothing is."""
    held_out_after: Annotated[int, Meta(ge=0)] = 20
    """Samples of a task that must have been learnt before any of it is held out."""
    recent_capacity: Annotated[int, Meta(ge=0)] = 16
    """Held-out samples, of all tasks together, that count as recent: the newest ones."""
    older_capacity: Annotated[int, Meta(ge=0)] = 64
    """Held-out samples that were recent once: a reservoir with as many of each task as possible."""
    judged_samples: Annotated[int, Meta(ge=0)] = 3
    """Held-out samples and general texts that every version is looked at with, each time those that waited longest.
    A pass forward for each. Probes come on top: they are few, and each was asked for."""
    judged_new: Annotated[int, Meta(ge=1)] = 1
    """New samples of a micro-batch that are scored again when it was learnt; if they have become less likely beyond the
    tolerance, all are. Of those that should be known all are in any case."""
    bisect_attempts: Annotated[int, Meta(ge=0)] = 6
    """Further attempts at the halves of a rejected micro-batch, and at theirs, to find what is bad in it; one bad
    sample of eight is found in 6. Each costs its samples and the old ones that are mixed in. 0: all is refused."""


class Slice(msgspec.Struct, frozen=True):
    """What belongs together: the recent or the older held-out samples of a task, its probes, general text."""

    name: str
    tolerance_nats: float
    last: Losses
    """When it was judged last, in a version that was accepted."""
    usual: Losses
    """The slow mean of those."""
    after: Losses
    """Under the candidate; of these samples, at least."""
    before: Losses | None = None
    """Under the parent, of the samples of ``after``. ``None``: it was only looked at."""
    base: Losses | None = None
    """Under the base; for general text."""

    @property
    def is_held_out(self) -> bool:
        """Out of the stream: of a few of its samples one is always odd. Probes were asked for one by one."""
        return self.name.partition(":")[0] in ("recent", "older")

    @property
    def rise_nats(self) -> float:
        """Above what it was."""
        was = min(_mean_of(self.usual, self.after), _mean_of(self.last, self.after))
        if self.before is not None:
            was = min(was, mean(self.before))
        return mean(self.after) - was


class Claim(msgspec.Struct, frozen=True):
    """What came of a task with answers that are known well (under suspicion, with any that are held out) beside what is
    held out with such answers; all under the weights that learn, before they did. At least one of each."""

    task: str
    tolerance_nats: float
    new: Losses
    expected: Losses
    """Of each new sample: the mean of what is held out with the same answer. A new answer is no wrong one."""
    beside: Losses
    """How far each held-out sample lies above the mean of the others with its answer."""
    patience_nats: float = 0.0
    """By how much more, because it contradicted so often."""
    is_suspected: bool = False
    """For what came of this task just before, or comes of others with it, so that half the size is enough, without
    certainty."""

    @property
    def bound(self) -> float:
        tolerance_nats = self.tolerance_nats * (0.5 if self.is_suspected else 1.0)
        return mean(self.expected) + tolerance_nats + self.patience_nats

    @property
    def unlikely(self) -> list[str]:
        """Ids of the samples to refuse, if it contradicts: without the tolerance, which is for their mean. Most of what
        is right lies below the mean of its answer."""
        # Written so that NaN is.
        return [name for name, loss in self.new.items() if not loss <= self.expected[name]]


def is_within(claim: Claim) -> bool:
    """The size alone; no loss that is no number is."""
    return mean(claim.new) <= claim.bound


def contradicts(claim: Claim, settings: GateSettings) -> bool:
    """By size, and by a test of two groups (``paired.permutation``)."""
    if is_within(claim):
        return False
    return claim.is_suspected or not _chance(claim) > settings.contradiction_significance


def looks_wrong(claim: Claim, settings: GateSettings) -> bool:
    """At first sight, by losses that are not all of the same weights: worth measuring, or not."""
    if not is_within(claim):
        return True
    half = msgspec.structs.replace(claim, is_suspected=True)
    return not is_within(half) and not _chance(claim) > settings.significance


def of_company(narrow: Claim | None, wide: Claim | None, settings: GateSettings) -> Claim | None:
    """What came of a task together with something that contradicts. Half the size is enough for it; of answers that are
    not known well too, with a test at ``significance``, for their losses are far apart.

    Args:
        narrow: with answers that are known well. wide: with all that are held out.
    """
    if wide and not is_within(wide) and not _chance(wide) > settings.significance:
        return wide
    return narrow and msgspec.structs.replace(narrow, is_suspected=True)


def are_of_one_hand(claims: Sequence[Claim], settings: GateSettings) -> bool:
    """Claims about one micro-batch. What comes together was sent together: if one contradicts, or all together do where
    there is too little of each to be certain, all are suspected."""
    if any(contradicts(claim, settings) for claim in claims):
        return True
    return len(claims) > 1 and contradicts(together(claims), _surer(settings))


def _surer(settings: GateSettings) -> GateSettings:
    significance = settings.contradiction_significance**_TOGETHER
    return msgspec.structs.replace(settings, contradiction_significance=significance)


def together(claims: Sequence[Claim]) -> Claim:
    """As if all were of one task: each sample is still held against its own answer."""
    return Claim(
        ", ".join(claim.task for claim in claims),
        claims[0].tolerance_nats,
        _union(claim.new for claim in claims),
        _union(claim.expected for claim in claims),
        _union(claim.beside for claim in claims),
        max(claim.patience_nats for claim in claims),
    )


def is_suspect(slice: Slice, settings: GateSettings, share: float = 1.0) -> bool:
    """Whether it has to be put to the test. ``share``: see ``judge``."""
    # Written so that NaN, which is less than nothing, is suspect.
    return not slice.rise_nats <= slice.tolerance_nats * share or not _drift(slice) <= settings.general_drift_nats


def judge(
    new_before: Losses,
    new_after: Losses,
    slices: Sequence[Slice],
    settings: GateSettings,
    share: float = 1.0,
    claims: Sequence[Claim] = (),
) -> Verdict:
    """All reasons to reject, or acceptance; with all the numbers either way.

    Args:
        new_before, new_after: of the samples that were learnt and should have become more likely; may be of none.
        slices: all but those that were only looked at are put to the test.
        share: of the tolerance of a slice. What is a part of a micro-batch that was rejected has a part of it: else the
            whole of the harm would come in by pieces that do little harm each.
        claims: that may contradict.
    """
    scores: dict[str, float] = {}
    reasons: list[str] = []
    if new_after:
        rises, p = _rises(new_before, new_after)
        scores |= {"new_before": mean(new_before), "new_after": mean(new_after), "new_p": p}
        bound = scores["new_before"] + settings.new_tolerance_nats
        if not scores["new_after"] <= bound and _is_certain(rises, p, settings):
            reasons.append(_reason("new samples became less likely", scores["new_after"], bound, p, len(rises)))
    for slice in slices:
        after, was = mean(slice.after), mean(slice.after) - slice.rise_nats
        scores |= {f"was:{slice.name}": was, f"after:{slice.name}": after, f"judged:{slice.name}": len(slice.after)}
        if slice.base is not None:
            scores[f"base:{slice.name}"] = after - _drift(slice)
        if slice.before is None:
            assert not is_suspect(slice, settings, share), slice.name
            continue
        rises, p = _rises(slice.before, slice.after)
        before = mean(slice.before)
        scores |= {f"before:{slice.name}": before, f"p:{slice.name}": p}
        is_enough = not slice.is_held_out or len(rises) >= enough_pairs(settings.significance) or math.isnan(p)
        if after <= before or not is_enough or not _is_certain(rises, p, settings):
            continue
        bound = was + slice.tolerance_nats * share
        if not after <= bound:
            reasons.append(_reason(f"{slice.name} became less likely", after, bound, p, len(rises)))
        bound = after - _drift(slice) + settings.general_drift_nats
        if slice.base is not None and not after <= bound:
            reasons.append(_reason(f"{slice.name} drifted from the base", after, bound, p, len(rises)))
    for claim in claims:
        new, p = mean(claim.new), _chance(claim)
        scores |= {f"new:{claim.task}": new, f"expected:{claim.task}": mean(claim.expected), f"new_p:{claim.task}": p}
        if contradicts(claim, settings):
            what = f"what came of {claim.task} contradicts what is held out of it"
            reasons.append(_reason(what, new, claim.bound, p, len(claim.new)))
    scores |= _means(slices)
    reason = "; ".join(reasons) or "nothing became less likely beyond tolerance"
    return Verdict(not reasons, reason, finite(scores))


def _union(losses: Iterable[Losses]) -> Losses:
    return {name: loss for some in losses for name, loss in some.items()}


def _chance(claim: Claim) -> float:
    """That what came is so far above what is expected, each for its answer: of all ways to divide the excesses."""
    new, beside = [loss - claim.expected[name] for name, loss in claim.new.items()], list(claim.beside.values())
    return permutation(new, beside) if all(map(math.isfinite, new + beside)) else math.nan


def enough_pairs(significance: float) -> int:
    """With fewer no difference can be significant: of n pairs all signs are alike by chance once in 2ⁿ."""
    return math.ceil(math.log2(1 / significance))


def mean(losses: Losses) -> float:
    return math.fsum(losses.values()) / len(losses)


def _rises(before: Losses, after: Losses) -> tuple[list[float], float]:
    """(after - before of each sample, the p of the hypothesis that their mean is not above 0; NaN: it is no number)."""
    rises = differences(before, after)
    return rises, sign_flip(rises) if all(map(math.isfinite, rises)) else math.nan


def _is_certain(rises: Sequence[float], p: float, settings: GateSettings) -> bool:
    return math.isnan(p) or len(rises) < enough_pairs(settings.significance) or p <= settings.significance


def _drift(slice: Slice) -> float:
    return 0.0 if slice.base is None else mean(slice.after) - _mean_of(slice.base, slice.after)


def _mean_of(losses: Losses, of: Losses) -> float:
    return mean({name: losses[name] for name in of})


def _reason(what: str, value: float, bound: float, p: float, num_pairs: int) -> str:
    return f"{what}: {value:.3f}, at most {bound:.3f} (p {p:.3f}, {num_pairs} samples)"


def _means(slices: Sequence[Slice]) -> dict[str, float]:
    """Of all that was judged, by kind, for the metrics."""
    found = {}
    for kind in ("recent", "older", "probe", GENERAL):
        losses = {name: loss for s in slices if s.name.partition(":")[0] == kind for name, loss in s.after.items()}
        if losses:
            found[f"{kind}_after"] = mean(losses)
    return found
