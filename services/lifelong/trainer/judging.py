"""What candidates are judged by, and how likely each of it has been.

Held-out samples are *recent* first, a window of the newest, and *older* then, a reservoir with as many of each task as
possible. Beside them are the user's probes and general text. Nothing of it is ever learnt. What a version is looked at
with is chosen by what has waited longest since it was judged, so that in a few versions all of it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from lifelong.contracts.samples import Sample
from lifelong.learning.gate import GENERAL, Claim, GateSettings, Losses, Slice, enough_pairs, mean
from lifelong.learning.replay import BalancedReservoir, ReplayState, randbelow

Evaluate = Callable[[Sequence[Sample]], dict[str, float]]
"""Losses by sample id under the weights that are served."""

_MOVES = 0.1
"""Of the way that the usual loss moves to a new one. What is lost at a constant rate is seen when it is lost ten times
between two judgements of a sample; nine tenths of what one of them is above or below by chance is not."""
OF_ANSWER = 2
"""Held-out samples with an answer, for it to be known well."""
_IS_LABEL = 10
"""Times that an answer was learnt in a task, to be one of its labels."""
_PATIENCE_NATS = 0.005
"""That are added to the tolerance each time what came of a task contradicts: after some hundred versions a world that
has changed is let in."""
_YIELDS = 0.03
"""The same for what a rejected version leaves as it was."""


class Known(msgspec.Struct, frozen=True):
    """Of one sample, in nats per token."""

    last: float
    usual: float
    version: int
    """That judged it last, or 0."""


class JudgingState(msgspec.Struct, frozen=True):
    older: ReplayState = ReplayState()
    known: dict[str, Known] = {}
    """By sample id."""
    general_base: dict[str, float] = {}
    suspected: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    """By task, how often what came of it contradicted, less how often it did not; unset if none did."""


class Judging:
    def __init__(self, settings: GateSettings, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        self.recent: list[Sample] = []
        """Oldest first."""
        self.older = BalancedReservoir(settings.older_capacity, seed)
        self.probes: list[Sample] = []
        """In the order in which they came."""
        self._general: list[Sample] = []
        self._general_base: dict[str, float] = {}
        self._known: dict[str, Known] = {}
        self._suspected: Counter[str] = Counter()

    def begin(self, general: Sequence[Sample], evaluate: Evaluate) -> None:
        """A line that has no versions yet; the weights are the base's."""
        self._general = list(general)
        self._general_base = evaluate(self._general)
        self._know(self._general_base)

    def load(
        self,
        state: JudgingState,
        recent: Sequence[Sample],
        older: Sequence[Sample],
        probes: Sequence[Sample],
        general: Sequence[Sample],
        evaluate: Evaluate,
    ) -> None:
        """What nothing is known of, because the settings were others, is evaluated now."""
        self.older.load(state.older, older)
        self._general, self._general_base = list(general), dict(state.general_base)
        self._known = dict(state.known)
        self._suspected = Counter(state.suspected or {})
        self.probes = list(probes)
        self.recent = list(recent)
        self._age()
        self._forget_the_gone()
        self._know(evaluate([sample for sample in self._all() if sample.id not in self._known]))

    def state(self) -> JudgingState:
        known, suspected = dict(sorted(self._known.items())), dict(sorted(self._suspected.items()))
        return JudgingState(self.older.state(), known, self._general_base, suspected or msgspec.UNSET)

    def hold_out(self, samples: Sequence[Sample], losses: Losses) -> None:
        """``losses``: of these, when the micro-batch that they came in was learnt. What is no number is left out."""
        known = {sample.id: loss for sample in samples if math.isfinite(loss := losses[sample.id])}
        self._know(known)
        self.recent += [sample for sample in samples if sample.id in known]
        self._age()
        self._forget_the_gone()

    def add_probes(self, probes: Sequence[Sample], evaluate: Evaluate) -> None:
        losses = evaluate(probes)
        self._know({name: loss for name, loss in losses.items() if math.isfinite(loss)})
        self.probes += [probe for probe in probes if probe.id in self._known]

    def remove(self, is_unwanted: Callable[[Sample], bool]) -> None:
        self.older.remove(is_unwanted)
        self.recent = [sample for sample in self.recent if not is_unwanted(sample)]
        self.probes = [probe for probe in self.probes if not is_unwanted(probe)]
        self._forget_the_gone()

    @property
    def held_out(self) -> list[Sample]:
        """And the probes."""
        return [*self.recent, *self.older.samples, *self.probes]

    @property
    def last_losses(self) -> dict[str, float]:
        """Of what was ever looked at, when it was last, in nats per token."""
        return {name: known.last for name, known in self._known.items()}

    def look(self, tasks: Collection[str]) -> list[Sample]:
        """With what the next version is looked at: all probes, and of the rest as many as the settings allow, one of
        each slice after the other.

        Args:
            tasks: of what is learnt. Harm is likeliest there, so their slices come first.
        """
        found: list[Sample] = []
        queues: list[list[Sample]] = []
        for name, samples in self._slices().items():
            if name.startswith("probe:"):
                found += samples
            else:
                queues.append(sorted(samples, key=self._wait))
        queues.sort(key=lambda queue: (queue[0].task not in tasks, self._wait(queue[0])))
        num_left = self._settings.judged_samples
        while num_left and any(queues):
            for queue in queues:
                if queue and num_left:
                    found.append(queue.pop(0))
                    num_left -= 1
        return found

    def slices(
        self, after: Losses, before: Mapping[str, float], tested: Collection[str], tasks: Collection[str]
    ) -> list[Slice]:
        """All of which something was judged.

        Args:
            after: under the candidate.
            tasks: of the micro-batch, as ``attempts.main_tasks`` counts them.
            before: under the parent; of the slices whose names are in ``tested`` every sample.
        """
        found = []
        for name, samples in self._slices().items():
            of = [sample.id for sample in samples if sample.id in after]
            if not of:
                continue
            is_general = name == GENERAL
            found.append(
                Slice(
                    name,
                    self._tolerance_nats(name, tasks),
                    last={key: self._known[key].last for key in of},
                    usual={key: self._known[key].usual for key in of},
                    after={key: after[key] for key in of},
                    before={key: before[key] for key in of} if name in tested else None,
                    base={key: self._general_base[key] for key in of} if is_general else None,
                )
            )
        return found

    def _tolerance_nats(self, slice: str, tasks: Collection[str]) -> float:
        s = self._settings
        if slice == GENERAL:
            return s.general_tolerance_nats
        kind, _, task = slice.partition(":")
        if kind == "probe" or task in tasks:
            return s.held_out_tolerance_nats
        return max(s.held_out_tolerance_nats, s.other_tasks_tolerance_nats)

    def has_room_for(self, number: int) -> bool:
        """Without letting go of anything that is held out."""
        room = self._settings.recent_capacity + self._settings.older_capacity
        return len(self.recent) + len(self.older.samples) + number <= room

    def is_short_of(self, sample: Sample, others: Sequence[Sample], learnt: Sequence[Sample]) -> bool:
        """Whether the answer came so often that it is a label, and too little is held out with it to know it well.

        Args:
            others: that will be held out.
            learnt: that are kept for replay.
        """

        def num(samples: Sequence[Sample]) -> int:
            return sum(s.task == sample.task and answer_of(s) == answer_of(sample) for s in samples)

        if not self.has_room_for(len(others) + 1):
            return False  # Of more labels than there is room for, all would be held out and nothing learnt.
        return num([*self.of_task(sample.task), *others]) < OF_ANSWER and num(learnt) >= _IS_LABEL

    def of_task(self, task: str) -> list[Sample]:
        """What is held out of it; probes are not."""
        return [sample for sample in (*self.recent, *self.older.samples) if sample.task == task]

    def is_suspected(self, task: str) -> bool:
        return self._suspected[task] > 0

    def claim(
        self, task: str, new: Sequence[Sample], losses: Losses, known: Losses, *, is_suspected: bool = False
    ) -> Claim | None:
        """
        Args:
            new: that came of the task; ``losses``: of these, before they were learnt.
            known: of what is held out of it.
            is_suspected: for what came with it, if not for what came before.

        Returns:
            ``None`` if nothing came with an answer that is known well, or too little with such answers is held out.
        """
        s, is_suspected = self._settings, is_suspected or self.is_suspected(task)
        if not s.known_nats:
            return None
        by_answer: dict[str, dict[str, float]] = {}
        for sample in self.of_task(task):
            by_answer.setdefault(answer_of(sample), {})[sample.id] = known[sample.id]
        # A suspicion ends neither by what was let in of a burst nor with an answer that is not known well; a single
        # sample is not enough to begin it.
        limit, least = (math.inf, 1) if is_suspected else (s.known_nats, OF_ANSWER)
        well = {answer: of for answer, of in by_answer.items() if len(of) >= least and mean(of) <= limit}
        expected = {sample.id: mean(well[answer]) for sample in new if (answer := answer_of(sample)) in well}
        beside = {name: _above_others(name, of) for of in well.values() for name in of}
        if not expected or len(beside) < enough_pairs(s.significance):
            return None
        new_losses, patience_nats = {key: losses[key] for key in expected}, _PATIENCE_NATS * self._suspected[task]
        return Claim(task, s.contradiction_nats, new_losses, expected, beside, patience_nats, is_suspected)

    def note_claims(self, tasks: Collection[str], contradicting: Collection[str]) -> None:
        """``tasks``: that came in the version."""
        for task in tasks:
            self._suspected[task] += 1 if task in contradicting else -1
        self._suspected = +self._suspected

    def of_slices(self, names: Collection[str]) -> list[Sample]:
        return [sample for name, samples in self._slices().items() if name in names for sample in samples]

    def note(self, losses: Losses, version: int, *, accepted: bool) -> None:
        """Under the version as it came out. If it was rejected, this is the parent, judged once more: a line of which
        nothing is let in any more slowly gets used to how it is, instead of standing still for ever."""
        moves = _MOVES if accepted else _YIELDS
        for name, loss in losses.items():
            if name in self._known:
                usual = self._known[name].usual
                self._known[name] = Known(loss, usual + moves * (loss - usual), version)

    def _slices(self) -> dict[str, list[Sample]]:
        found: dict[str, list[Sample]] = {}
        for kind, samples in (("recent", self.recent), ("older", self.older.samples), ("probe", self.probes)):
            for sample in samples:
                found.setdefault(f"{kind}:{sample.task}", []).append(sample)
        return dict(sorted(found.items())) | ({GENERAL: self._general} if self._general else {})

    def _wait(self, sample: Sample) -> tuple[int, int]:
        """Smaller for what has waited longer; of equals chance decides."""
        return self._known[sample.id].version, randbelow(1 << 62, self._seed, "look", sample.id)

    def _all(self) -> list[Sample]:
        return [*self.held_out, *self._general]

    def _know(self, losses: Losses) -> None:
        self._known |= {name: Known(loss, loss, 0) for name, loss in losses.items()}

    def _age(self) -> None:
        """What is not among the newest any more may be kept as older."""
        num_older = max(0, len(self.recent) - self._settings.recent_capacity)
        for sample in self.recent[:num_older]:
            self.older.add(sample)
        del self.recent[:num_older]

    def _forget_the_gone(self) -> None:
        kept = {sample.id for sample in self._all()}
        self._known = {name: known for name, known in self._known.items() if name in kept}


def answer_of(sample: Sample) -> str:
    """Texts are no answers, and none is like another."""
    return sample.messages[-1].content if sample.messages else sample.id


def _above_others(name: str, losses: Losses) -> float:
    """Than the mean of the others; alone it says nothing."""
    return losses[name] - mean({key: loss for key, loss in losses.items() if key != name}) if len(losses) > 1 else 0.0
