"""What a line shows of how it learns: how well it knew what came, what it kept, whether the stream drifts.

All of it is a function of the log, like the weights, and part of it decides them: so it is in a file of the version,
and a rejected micro-batch leaves no trace in it. (A stream that drifts so far that the gate lets nothing through is not
seen here, but by the rejections.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import msgspec

from lifelong.contracts.samples import Sample
from lifelong.errors import CorruptVersionError
from lifelong.learning.base import Learner
from lifelong.learning.drift_watch import DriftSettings, DriftState, DriftWatch
from lifelong.learning.meter import base_losses
from lifelong.learning.olora import OLora
from lifelong.learning.online import Lesson
from lifelong.learning.prequential import Prequential, PrequentialState, is_answer
from lifelong.learning.recipe import Recipe
from lifelong.learning.transfer import Transfer, TransferState

SIGNALS_FILE = "signals.json"
"""Beside ``state.json`` and not in it: versions that were made before there were signals can still be verified."""

MAX_TASKS = 64
"""That are told apart, in the order in which they come. All later ones are one, called ``other``."""

_OTHER = "other"


class SignalState(msgspec.Struct, frozen=True):
    """``signals.json``."""

    prequential: PrequentialState = PrequentialState()
    transfer: TransferState = TransferState()
    drift: DriftState = DriftState()


class Signals:
    def __init__(self, settings: DriftSettings) -> None:
        self._settings = settings
        self.prequential = Prequential()
        self.transfer = Transfer(MAX_TASKS)
        self.drift = DriftWatch(settings)

    def saw(
        self,
        version: int,
        learner: Learner,
        lesson: Lesson,
        new: Sequence[Sample],
        judged: Sequence[Sample],
        before: Mapping[str, float],
        after: Mapping[str, float],
        *,
        max_tokens: int,
    ) -> bool:
        """A micro-batch was learnt and accepted. Whether the stream has drifted in it.

        Args:
            new: what there was to imitate in it.
            judged: what is held out and the probes. before, after: their losses under the parent and this version.
            max_tokens: of a pass.
        """
        has_drifted = False
        for sample in new:
            task = self._task(sample.task)
            was_right = lesson.right[sample.id] if is_answer(sample) else None
            loss = lesson.before[sample.id]
            self.prequential.saw(task, loss, was_right)
            has_drifted |= self.drift.saw(task, loss, version)
        forward = self._forward(learner, lesson, new, max_tokens)
        self.transfer.saw({sample.task for sample in new}, judged, before, after, forward)
        return has_drifted

    def _forward(self, learner: Learner, lesson: Lesson, new: Sequence[Sample], max_tokens: int) -> dict[str, float]:
        """Of the tasks that are new: how much better than the base the line knew them already."""
        first = [sample for sample in new if self.transfer.is_new(sample.task)]
        base = base_losses(learner, first, max_tokens)
        found: dict[str, list[float]] = {}
        for sample in first:
            gained = base[sample.id] - lesson.before[sample.id]
            if math.isfinite(gained):
                found.setdefault(sample.task, []).append(gained)
        return {task: math.fsum(gained) / len(gained) for task, gained in found.items()}

    def _task(self, task: str) -> str:
        known = self.prequential.losses
        return task if task in known or len(known) < MAX_TASKS else _OTHER

    def keep(self, sample_ids: Collection[str]) -> None:
        """Only these are held out."""
        self.transfer.keep(sample_ids)

    def numbers(self) -> dict[str, float]:
        """For the manifest: means over tasks."""
        found = self.transfer.means()
        for name, by_task in (
            ("prequential_loss_nats", self.prequential.losses),
            ("prequential_accuracy", self.prequential.accuracies),
        ):
            if by_task:
                found[name] = math.fsum(by_task.values()) / len(by_task)
        if self._settings.detector != "none":
            found["drifts"] = self.drift.num_seen
        return found

    def pack(self) -> bytes:
        state = SignalState(self.prequential.state(), self.transfer.state(), self.drift.state())
        return msgspec.json.encode(state, order="sorted")

    def unpack(self, data: bytes, learnt_with: DriftSettings) -> None:
        """Raises CorruptVersionError: not what ``pack`` gives."""
        try:
            state = msgspec.json.decode(data, type=SignalState)
        except msgspec.DecodeError as error:
            raise CorruptVersionError(f"{SIGNALS_FILE}: {error}") from error
        self.prequential.load(state.prequential)
        self.transfer.load(state.transfer)
        self.drift.load(state.drift, anew=learnt_with != self._settings)


def begin_block(recipe: Recipe) -> None:
    """What drifted is learnt in a block of its own, where there are blocks (O-LoRA)."""
    for method in recipe.methods.values():
        if isinstance(method, OLora):
            method.next_block()
