"""What is done about drift: for some versions more of the old is mixed in, and others are told.

Watched is the prequential loss of each sample, over all that comes or task by task, with ADWIN or Page-Hinkley (see
``lifelong.learning.drift``). Only a loss that *rises* is drift: one that falls is what learning is for.

A burst of drift asks for more replay than a quiet stream, a quarter of what is learnt instead of a twentieth or so, for
it is then that the old is overwritten.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lifelong.learning.drift import Adwin, AdwinState, PageHinkley, PageHinkleyState

MAX_WATCHED = 32
"""Tasks that are watched one by one; those that come later together."""


class DriftSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every field here is written into the manifests, for it decides bytes."""

    detector: Literal["none", "adwin", "page-hinkley"] = "none"
    by: Literal["line", "task"] = "line"
    """What is watched: all samples together, so that a new kind of them is drift too, or those of each task."""
    adwin_delta: Annotated[float, Meta(gt=0, lt=1)] = 0.002
    """Probability of a false alarm, at each test."""
    page_hinkley_threshold: Annotated[float, Meta(gt=0)] = 25.0
    """λ, in nats summed up."""
    page_hinkley_delta: Annotated[float, Meta(ge=0)] = 0.25
    """δ, nats that the loss of a sample may lie above the mean."""
    replay_factor: Annotated[float, Meta(ge=1)] = 2.0
    """By which ``learning.replay_samples`` is raised when drift was seen."""
    versions: Annotated[int, Meta(ge=0)] = 16
    """For which it stays raised."""


class DriftState(msgspec.Struct, frozen=True):
    adwin: dict[str, AdwinState] = {}
    """By task; of the line: under an empty name."""
    page_hinkley: dict[str, PageHinkleyState] = {}
    num_seen: int = 0
    """Drifts since the line began."""
    until: int = 0
    """Number of the last version that is learnt with more replay."""


class DriftWatch:
    def __init__(self, settings: DriftSettings) -> None:
        self._settings = settings
        self._detectors: dict[str, Adwin | PageHinkley] = {}
        self.num_seen = 0
        """Drifts since the line began."""
        self._until = 0

    def replay_samples(self, wanted: int, version: int) -> int:
        """To mix into each step of the micro-batch that leads to ``version``, where a quiet stream needs ``wanted``."""
        return math.ceil(wanted * self._settings.replay_factor) if self.is_raised(version) else wanted

    def is_raised(self, version: int) -> bool:
        return version <= self._until

    def saw(self, task: str, loss: float, version: int) -> bool:
        """Whether this sample, new in ``version``, makes it a drift."""
        if self._settings.detector == "none" or not math.isfinite(loss):
            return False
        detector = self._detector(task)
        if isinstance(detector, Adwin):
            mean = detector.mean
            has_changed = detector.update(loss) and detector.mean > mean
        else:
            has_changed = detector.update(loss)
        if has_changed:
            self.num_seen += 1
            self._until = version + self._settings.versions
        return has_changed

    def _detector(self, task: str) -> Adwin | PageHinkley:
        name = task if self._settings.by == "task" else ""
        if name not in self._detectors and len(self._detectors) >= MAX_WATCHED:
            name = ""
        if name not in self._detectors:
            self._detectors[name] = self._new()
        return self._detectors[name]

    def _new(self) -> Adwin | PageHinkley:
        s = self._settings
        if s.detector == "adwin":
            return Adwin(delta=s.adwin_delta)
        return PageHinkley(threshold=s.page_hinkley_threshold, delta=s.page_hinkley_delta, fall=False)

    def state(self) -> DriftState:
        found = self._detectors.items()
        return DriftState(
            adwin={name: d.state() for name, d in found if isinstance(d, Adwin)},
            page_hinkley={name: d.state() for name, d in found if isinstance(d, PageHinkley)},
            num_seen=self.num_seen,
            until=self._until,
        )

    def load(self, state: DriftState, *, anew: bool = False) -> None:
        """``anew``: with other settings than those that led to the state; only what was seen is still known."""
        self.num_seen = state.num_seen
        self._until = 0 if anew else state.until
        self._detectors = {}
        if anew:
            return
        for name, state_of_one in {**state.adwin, **state.page_hinkley}.items():
            detector = self._detectors[name] = self._new()
            if isinstance(detector, Adwin):
                assert isinstance(state_of_one, AdwinState)
                detector.load(state_of_one)
            else:
                assert isinstance(state_of_one, PageHinkleyState)
                detector.load(state_of_one)
