"""Forgetting and transfer on a stream that never says where a task begins or ends.

``lifelong.learning.forgetting`` has the measures, and where they come from, for tasks that are learnt one after the
other, with a matrix of scores at the end. Here the score is minus the loss on the held-out slice of a task, in nats per
token, known after each version; a task is *learnt* in each version that has new samples of it. With ℓ_t(j) for the loss
of task j after version t, at version T:

========================= ============================================================== ============================
measure                   here                                                           there
========================= ============================================================== ============================
forgetting                ℓ_T(j) - min over all t < T of ℓ_t(j)                          best of before less the end
backward transfer         ℓ_s(j) - ℓ_T(j), version s being the newest that learnt j      end less right after learnt
forward transfer          loss under the base less the loss before anything of j was     before learnt less untrained
                          learnt, on the new samples of the first version that has any
plasticity, as a loss     ℓ_s(j)                                                         right after learnt
anytime average           mean over all t of the mean ℓ_t over the tasks learnt by then  the same
========================= ============================================================== ============================

They come to the same where each task is one version and no task was ever better before it was learnt than after (tests
hold them to it). Means over tasks leave out those of the newest version, as they do there: nothing can have been
forgotten of what was learnt just now. What a version does to a task that returns in it again and again is in the
measures of that task alone.

What is held out changes while the stream goes on, and not all of it is looked at under each version. So marks are kept
for each sample: the loss of a slice is compared with what the same samples had then; one that came later counts from
when it came, and one that was not looked at is as it was.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import msgspec

from lifelong.contracts.samples import Sample


class Mark(msgspec.Struct, frozen=True):
    """Of one held-out sample, losses in nats per token."""

    task: str
    now: float
    best: float
    """When its task was at its best, before ``now``."""
    learnt: float
    """Right after its task was last learnt since it was held out; before that, when it was held out."""
    is_late: bool = False
    """Its task was learnt since it was last looked at: ``learnt`` is what it is found to be next time."""


class TransferState(msgspec.Struct, frozen=True):
    marks: dict[str, Mark] = {}
    """By sample id."""
    learnt: tuple[str, ...] = ()
    """Tasks, in the order in which they came first."""
    newest: tuple[str, ...] = ()
    """Those of the newest version."""
    forward: dict[str, float] = {}
    """Forward transfer by task."""
    anytime: float = 0.0
    """Sum over versions."""
    num_averaged: int = 0
    """Versions in it."""


class Transfer:
    """
    Args:
        max_tasks: of which it is kept that they were learnt; those that come later are not measured.
    """

    def __init__(self, max_tasks: int) -> None:
        self._max_tasks = max_tasks
        self._state = TransferState()

    def is_new(self, task: str) -> bool:
        """Whether nothing of it was learnt yet but something else was, and there is room for it."""
        learnt = self._state.learnt
        return task not in learnt and 0 < len(learnt) < self._max_tasks

    def knew(self, tasks: Collection[str]) -> None:
        """They were learnt before anything was measured, so there is no forward transfer to them."""
        self._state = msgspec.structs.replace(self._state, learnt=tuple(sorted(tasks))[: self._max_tasks])

    def saw(
        self,
        tasks: Collection[str],
        held_out: Sequence[Sample],
        before: Mapping[str, float],
        after: Mapping[str, float],
        forward: Mapping[str, float],
    ) -> None:
        """A version was made.

        Args:
            tasks: of its new samples.
            held_out: all samples that are held out now.
            before: their losses when they were last looked at. after: under this version, of those that were looked at.
            forward: of the tasks that this version is the first to have learnt, as defined above.
        """
        s = self._state
        newest = tuple(sorted(set(tasks)))
        room = self._max_tasks - len(s.learnt)
        learnt = s.learnt + tuple(task for task in newest if task not in s.learnt)[:room]
        marks: dict[str, Mark] = {}
        for task, samples in _by_task(held_out).items():
            known = {x.id: mark for x in samples if (mark := s.marks.get(x.id) or _first(task, before.get(x.id)))}
            if not known:
                continue
            is_best = _mean([mark.now for mark in known.values()]) < _mean([mark.best for mark in known.values()])
            for name, mark in known.items():
                now = after.get(name, math.nan)
                is_known, is_late = math.isfinite(now), mark.is_late or task in newest
                marks[name] = Mark(
                    task,
                    now if is_known else mark.now,
                    mark.now if is_best else mark.best,
                    now if is_known and is_late else mark.learnt,
                    is_late and not is_known,
                )
        averaged = [_mean(losses) for task, losses in _losses(marks).items() if task in learnt]
        self._state = TransferState(
            marks=marks,
            learnt=learnt,
            newest=newest,
            forward=s.forward | {task: nats for task, nats in forward.items() if task in learnt},
            anytime=s.anytime + (_mean(averaged) if averaged else 0.0),
            num_averaged=s.num_averaged + bool(averaged),
        )

    def keep(self, sample_ids: Collection[str]) -> None:
        """No others are held out any more."""
        marks = {name: mark for name, mark in self._state.marks.items() if name in sample_ids}
        self._state = msgspec.structs.replace(self._state, marks=marks)

    @property
    def forgetting(self) -> dict[str, float]:
        """By task, probes included; below 0 where it was never better than now."""
        return {task: _mean([m.now - m.best for m in marks]) for task, marks in self._by_task().items()}

    @property
    def backward(self) -> dict[str, float]:
        """By task that was learnt; below 0 where it was forgotten since."""
        return {task: _mean([m.learnt - m.now for m in marks]) for task, marks in self._learnt().items()}

    @property
    def forward(self) -> dict[str, float]:
        """By task; above 0 where what was learnt before has helped it."""
        return dict(self._state.forward)

    @property
    def learnt_losses(self) -> dict[str, float]:
        """Plasticity: by task that was learnt, its loss right after; the lower, the better it learns."""
        return {task: _mean([m.learnt for m in marks]) for task, marks in self._learnt().items()}

    @property
    def anytime(self) -> float | None:
        """Nats per token; ``None`` as long as nothing is held out of what was learnt."""
        s = self._state
        return s.anytime / s.num_averaged if s.num_averaged else None

    def means(self) -> dict[str, float]:
        """Over tasks: forgetting and backward transfer of the earlier ones (see above), the others of all."""
        newest = self._state.newest
        found = {
            "forgetting_nats": _mean_of({t: v for t, v in self.forgetting.items() if t not in newest}),
            "backward_transfer_nats": _mean_of({t: v for t, v in self.backward.items() if t not in newest}),
            "forward_transfer_nats": _mean_of(self.forward),
            "plasticity_loss_nats": _mean_of(self.learnt_losses),
            "anytime_loss_nats": self.anytime,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _by_task(self) -> dict[str, list[Mark]]:
        found: dict[str, list[Mark]] = defaultdict(list)
        for mark in self._state.marks.values():
            found[mark.task].append(mark)
        return found

    def _learnt(self) -> dict[str, list[Mark]]:
        return {task: marks for task, marks in self._by_task().items() if task in self._state.learnt}

    def state(self) -> TransferState:
        return self._state

    def load(self, state: TransferState) -> None:
        self._state = state


def _first(task: str, loss: float | None) -> Mark | None:
    """``None``: nothing is known of it yet."""
    return None if loss is None or not math.isfinite(loss) else Mark(task, loss, loss, loss)


def _by_task(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.task].append(sample)
    return found


def _losses(marks: Mapping[str, Mark]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for mark in marks.values():
        found[mark.task].append(mark.now)
    return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _mean_of(values: Mapping[str, float]) -> float | None:
    return _mean(list(values.values())) if values else None
