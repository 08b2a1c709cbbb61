"""What is mixed into the steps on new samples: old ones, the base's own words, and readings of facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lifelong.contracts.samples import Sample
from lifelong.learning import anchor, reading
from lifelong.learning.replay import Reservoir
from lifelong.learning.settings import LearningSettings

_REPEATS = 4
"""Times in a micro-batch that a fact which is known no more goes before others."""


class Mixture:
    """For one attempt at a micro-batch. Called once for each step, in order, it draws what goes into it: a function of
    what there is to draw from, of the seed, the version, the step, and of what was drawn for the steps before and how
    likely it was."""

    def __init__(
        self,
        replay: Reservoir,
        anchors: Sequence[Sample],
        to_know: Sequence[Sample],
        settings: LearningSettings,
        *,
        version: int,
        num_old: int,
        first_step: int = 0,
    ) -> None:
        """
        Args:
            to_know: of the new samples, those that are learnt until they are known.
            num_old: samples for each step; twice as many where something is learnt until it is known.
            first_step: of this attempt, counted over all at the same micro-batch.
        """
        self._replay = replay
        self._anchors = anchors
        self._to_know = to_know
        self._settings = settings
        self._version = version
        # Steps that go on until something is known take more to keep the rest where it is.
        self._num_old = num_old * 2 if to_know else num_old
        self._first_step = first_step
        self._repeated: Counter[str] = Counter()
        self.drawn: dict[str, Sample] = {}
        """Old samples, by id; of a step that was found needless too, which is not taken."""
        self.losses: dict[str, float] = {}
        """Of each old sample as it was last seen; ``learn`` writes them."""

    def __call__(self, step: int) -> list[Sample]:
        s, step = self._settings, step + self._first_step
        drawn = self._replay.draw(self._num_old, version=self._version, step=step, known=self._known())
        self._repeated.update(sample.id for sample in drawn)
        self.drawn.update((sample.id, sample) for sample in drawn)
        # A young line has little to replay: the base's own words take its place.
        num_anchors = s.anchor_samples + self._num_old - len(drawn) if s.anchor_samples else 0
        where = {"seed": s.seed, "version": self._version, "step": step}
        anchors = anchor.draw(self._anchors, num_anchors, **where)
        return [*drawn, *anchors, *reading.draw(self._to_know, s.reading_samples, **where)]

    def _known(self) -> set[str]:
        """What is known again, or does not become so by being repeated, makes room for others."""
        target = self._settings.target_loss_nats
        return {
            name
            for name, times in self._repeated.items()
            if times >= _REPEATS or self.losses.get(name, float("inf")) < target
        }
