"""What goes on while a micro-batch is learnt: attempts at the whole of it and, if that is rejected, at its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.contracts.versions import Verdict
from lifelong.learning.online import Lesson
from lifelong.learning.replay import ReplayState


class Refused(NamedTuple):
    """A part of a micro-batch that was rejected and not halved further."""

    samples: list[Sample]
    reason: str


class Report(NamedTuple):
    """What became of a micro-batch. ``lesson`` is ``None`` if there was nothing to learn in it."""

    new: list[Sample]
    """Learnt, or refused."""
    held_out: list[Sample]
    replayed: list[Sample]
    refused: list[Refused]
    num_superseded: int
    """Contradicted by a later sample of the same micro-batch."""
    num_skipped: int
    """With nothing in them that could be learnt."""
    lesson: Lesson | None
    """Of all attempts together. After it: of what was learnt, or if nothing was of what was refused; of what should be
    known under the weights that are served, of the rest under those that learn."""
    verdict: Verdict
    base_kl: float | None
    step_seconds: float
    gate_seconds: float

    @property
    def learnt(self) -> list[Sample]:
        refused = {sample.id for part in self.refused for sample in part.samples}
        return [sample for sample in self.new if sample.id not in refused]


class Before(NamedTuple):
    """All that an attempt changes, as it was."""

    weights: dict[str, Tensor]
    served: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    recipe: dict[str, Tensor]
    replay: ReplayState
    replayable: list[Sample]


class Attempt(NamedTuple):
    """To learn a micro-batch, or a part of one."""

    new: Sequence[Sample]
    lesson: Lesson
    verdict: Verdict
    base_kl: float | None
    unlikely: Collection[str] = ()
    """Ids of those that contradict what is held out."""


@dataclass
class Course:
    """What goes from one attempt at a micro-batch to the next."""

    number: int
    num_samples: int
    main_tasks: Collection[str]
    """Of the whole micro-batch, also where a part of it is learnt."""
    looked_at: list[Sample]
    held_out: Sequence[Sample]
    """That came in it, and are judged by from the next version on: how likely they are is asked in the same pass."""
    on_step: Callable[[int], None]
    num_attempts_left: int
    """At parts, should the whole be rejected."""
    suspects: set[str] = field(default_factory=set)
    """Slices that were put to the test, and are again by each further attempt."""
    present: dict[str, float] = field(default_factory=dict)
    """Losses under the weights as they are, as far as known."""
    unlearnt: dict[str, float] = field(default_factory=dict)
    """The same under those that learn, of new samples too."""
    replayed: dict[str, Sample] = field(default_factory=dict)
    num_steps: int = 0
    num_tokens: int = 0
    step_seconds: float = 0.0
    gate_seconds: float = 0.0


def main_tasks(samples: Sequence[Sample]) -> set[str]:
    """That make up a quarter of them at least: what comes in by the way of another task cannot keep it from harm."""
    counts = Counter(sample.task for sample in samples)
    return {task for task, count in counts.items() if 4 * count >= len(samples)}


def lesson_of(whole: Attempt, good: Sequence[Attempt]) -> Lesson:
    """Of the version. What a part that was accepted was like before was measured without the steps that were taken
    back; of the rest there is only what the whole says."""
    before, right = dict(whole.lesson.before), dict(whole.lesson.right)
    for part in good:
        before |= part.lesson.before
        right |= part.lesson.right
    after = {name: loss for part in good or [whole] for name, loss in part.lesson.after.items()}
    return replace(whole.lesson, before=before, right=right, after=after)


def verdict_of(whole: Attempt, good: Sequence[Attempt], refused: Sequence[Refused]) -> Verdict:
    """Of the version; a version is accepted if anything of its micro-batch is."""
    if not good or not refused:
        return whole.verdict if not good else good[-1].verdict
    num_refused = sum(len(part.samples) for part in refused)
    reason = f"without {num_refused} of {len(whole.new)} samples, with which {whole.verdict.reason}"
    return Verdict(True, reason, good[-1].verdict.scores)
