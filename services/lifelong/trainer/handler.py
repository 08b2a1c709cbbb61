"""The trainer without its sockets: records of the samples topic in, versions out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from lifelong.contracts.events import Forget
from lifelong.contracts.samples import Sample, SampleRecord
from lifelong.contracts.versions import Batch, Manifest, Refused, Verdict, finite
from lifelong.errors import ConfigError, DecodeError
from lifelong.learning.gate import mean
from lifelong.model.hashing import combined_sha256, tensor_hashes
from lifelong.model.learner import AdapterLearner
from lifelong.runtime.clock import Clock
from lifelong.stream.base import Record
from lifelong.trainer.attempts import Report
from lifelong.trainer.config import Curriculum, Settings
from lifelong.trainer.history import Chapter
from lifelong.trainer.intake import Entry, Intake, Trigger
from lifelong.trainer.recorded import curriculum_of, recorded_settings
from lifelong.trainer.schooling import Schooling
from lifelong.trainer.signals import SIGNALS_FILE


class Candidate(NamedTuple):
    """A version that is yet to be committed; the registry fills in ``folder`` and ``files``."""

    manifest: Manifest
    files: dict[str, bytes]
    report: Report


class Trainer:
    """Drives one line. ``begin`` or ``restore`` comes first. Not safe to share between threads.

    After ``learn`` the version must be committed before anything else is learnt: what is in memory is already it.
    """

    def __init__(self, learner: AdapterLearner, settings: Settings, clock: Clock) -> None:
        self.learner = learner
        self.settings = settings
        self._clock = clock
        self._recorded = recorded_settings(learner, settings)
        self.schooling = Schooling(learner, settings.curriculum, clock)
        self.intake = Intake(settings.trainer, {})
        self.number = 0
        """Of the version in memory."""
        self.newest = 0
        """Of the newest version that was ever made: the next one has a higher number."""
        self.watermarks: dict[int, int] = {}
        """Source partition → first source offset that is not in the version in memory."""
        self.positions: dict[int, int] = {}
        """Samples partition → the offset to read on from."""
        self.counts: Counter[str] = Counter()
        self._newest_event_time: float | None = None
        self._start = 0

    def begin(self) -> None:
        """A line that has no versions yet."""
        self.schooling.begin(self.settings.trainer.anchor_prompts)

    def restore(self, manifest: Manifest, files: Mapping[str, bytes]) -> None:
        """Go on from a version, accepted or not; what waited is dropped, to be read again.

        Raises:
            ConfigError: base or adapter are not those that the line was learnt with.
        """
        self._return_to(manifest, files)
        self._follow(self.settings.curriculum)
        self.newest = max(self.newest, manifest.number)
        self.intake = Intake(self.settings.trainer, manifest.watermarks)

    def _return_to(self, manifest: Manifest, files: Mapping[str, bytes]) -> None:
        if manifest.base_sha256 != self.learner.base.sha256:
            raise ConfigError(
                "model.name",
                f"line {manifest.line!r} was learnt on {manifest.base} ({manifest.base_sha256[:12]}), this is "
                f"{self.learner.base.name} ({self.learner.base.sha256[:12]}); set line.name to begin a new line",
            )
        self.schooling = Schooling(self.learner, curriculum_of(manifest), self._clock)
        try:
            self.schooling.restore(files, self.schooling.curriculum)
        except ValueError as error:
            raise ConfigError("adapter", f"not that of line {manifest.line!r}: {error}") from error
        self.number = manifest.number
        self.watermarks = dict(manifest.watermarks)
        self.positions = dict(manifest.positions)
        self.counts = Counter(manifest.counts)
        self._newest_event_time = manifest.newest_event_time

    def take(self, record: Record) -> Literal["new", "duplicate", "gap"]:
        """
        Raises:
            DecodeError: not a record of this topic. Whatever it covered is now a gap until it is sent again.
        """
        decoded = decode(record)
        return self.intake.take(decoded, record.partition, record.offset, self._clock.monotonic())

    def ready(self) -> Trigger | None:
        return self.intake.ready(self._clock.monotonic())

    def learn(self, trigger: Trigger, *, epoch: int, on_step: Callable[[int], None] = lambda step: None) -> Candidate:
        """Make the next version of the oldest samples that wait."""
        assert trigger != "forget"
        begun, now = self._clock.monotonic(), self._clock.now()
        batch = self.intake.next_batch()
        parent = self.number
        report = self._advance(self.newest + 1, batch.samples, batch.probes, batch.forgets, batch, on_step)
        linger = begun - batch.taken_at
        oldest = batch.samples[0].event_time if batch.samples else now
        waited = {"queue_seconds": max(0.0, now - linger - oldest), "linger_seconds": linger}
        return self._candidate(report, trigger, parent, epoch, waited)

    def return_to(
        self,
        start: Manifest | None,
        files: Mapping[str, bytes],
        following: Manifest,
        anchors: Sequence[Sample] | None = None,
    ) -> None:
        """Take up an older version, or (``None``) the beginning, to relearn what follows. What waits goes on waiting.

        Args:
            following: has the settings of the first micro-batch to be relearnt, with which the line began.
            anchors: of the line, where it was neither begun nor restored here.

        Raises as ``restore``.
        """
        self._start = start.number if start else 0
        if start is not None:
            self._return_to(start, files)
        else:
            self._begin_anew(self.schooling.anchors if anchors is None else anchors, curriculum_of(following))

    def relearn(
        self, chapter: Chapter, unwanted: Sequence[Forget], on_step: Callable[[int], None] = lambda step: None
    ) -> Report:
        """One micro-batch of the past again: under its old number, with its old settings, without what is unwanted."""
        samples, num_gone = chapter.without(unwanted)
        self._follow(curriculum_of(chapter.manifest))
        past = Entry(
            outcomes=chapter.outcomes + Counter(forgotten=num_gone),
            watermarks=chapter.manifest.watermarks,
            positions=chapter.manifest.positions,
        )
        report = self._advance(chapter.manifest.number, samples, chapter.probes, chapter.forgets, past, on_step)
        if SIGNALS_FILE not in chapter.manifest.files:
            self.schooling.begin_signals()
        return report

    def forget(self, relearned: Sequence[int], reason: str, *, epoch: int) -> Candidate:
        """Make the version that takes in the oldest request to forget that waits; the weights are those that the
        relearning before this call has led to.

        Args:
            relearned: numbers of the micro-batches that were learnt again since ``return_to``; none: it was not called.
            reason: of the verdict.
        """
        self._follow(self.settings.curriculum)
        batch = self.intake.next_batch()
        assert batch.forgets, "next_forgets comes first"
        parent = self._start if relearned else self.number
        report = self._advance(self.newest + 1, [], [], batch.forgets, batch)
        report = report._replace(verdict=Verdict(True, reason))
        return self._candidate(report, "forget", parent, epoch, {}, tuple(relearned))

    def _begin_anew(self, anchors: Sequence[Sample], curriculum: Curriculum) -> None:
        """As before the first version: a fresh adapter, nothing known of any sample."""
        self.schooling = Schooling(self.learner, curriculum, self._clock)
        self.schooling.begin(self.settings.trainer.anchor_prompts, anchors)
        self.number = 0
        self.watermarks, self.positions, self.counts = {}, {}, Counter()
        self._newest_event_time = None

    def _advance(
        self,
        number: int,
        samples: Sequence[Sample],
        probes: Sequence[Sample],
        forgets: Sequence[Forget],
        past: Entry,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> Report:
        report = self.schooling.learn(number, samples, forgets, on_step, probes)
        self.number = number
        self.newest = max(self.newest, number)
        self.watermarks |= past.watermarks
        self.positions |= past.positions
        self.counts += past.outcomes + _fates(report)
        if report.verdict.accepted:
            times = [sample.event_time for sample in report.learnt]
            self._newest_event_time = max(
                [*times, *([self._newest_event_time] if self._newest_event_time else [])], default=None
            )
        return report

    def _candidate(
        self,
        report: Report,
        trigger: Trigger,
        parent: int,
        epoch: int,
        measured: Mapping[str, float],
        relearned: tuple[int, ...] = (),
    ) -> Candidate:
        tensors = tensor_hashes(self.schooling.served_state())
        manifest = Manifest(
            line=self.settings.line.name,
            number=self.number,
            parent=parent,
            kind="active",
            base=self.learner.base.name,
            base_sha256=self.learner.base.sha256,
            epoch=epoch,
            created=self._clock.now(),
            weights_sha256=combined_sha256(tensors),
            files={},
            folder="",
            watermarks=dict(sorted(self.watermarks.items())),
            positions=dict(sorted(self.positions.items())),
            counts=dict(sorted(self.counts.items())),
            batches=(
                Batch(
                    samples=tuple(sample.id for sample in report.new),
                    held_out=tuple(sample.id for sample in report.held_out),
                    replayed=tuple(sample.id for sample in report.replayed),
                    num_steps=report.lesson.num_steps if report.lesson else 0,
                    trigger=trigger,
                ),
            ),
            tensors=tensors,
            metrics=_measured(report) | self.schooling.signals.numbers() | dict(measured),
            verdict=report.verdict,
            newest_event_time=self._newest_event_time,
            settings=self._recorded,
            relearned=relearned,
            refused=tuple(
                Refused(
                    tuple(sample.id for sample in part.samples),
                    tuple(dict.fromkeys(sample.event_id for sample in part.samples)),
                    part.reason,
                )
                for part in report.refused
            ),
        )
        return Candidate(manifest, self.schooling.files(), report)

    def _follow(self, curriculum: Curriculum) -> None:
        """As if the process had been started again with these settings."""
        before = self.schooling
        if curriculum == before.curriculum:
            return
        files = before.files()
        self.schooling = Schooling(self.learner, curriculum, self._clock)
        self.schooling.restore(files, before.curriculum)


def decode(record: Record) -> SampleRecord:
    """Raises DecodeError: ``empty`` or ``bad-samples-record``."""
    if not record.value:
        raise DecodeError("empty", "the record has no value", record.value)
    try:
        return msgspec.json.decode(record.value, type=SampleRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("bad-samples-record", str(error), record.value) from error


def _fates(report: Report) -> Counter[str]:
    num_learnt = len(report.learnt)
    return Counter(
        {
            "trained": num_learnt,
            "rejected": len(report.new) - num_learnt,
            "held_out": len(report.held_out),
            "superseded": report.num_superseded,
            "skipped": report.num_skipped,
        }
    )


def _measured(report: Report) -> dict[str, float]:
    found = {"step_seconds": report.step_seconds, "gate_seconds": report.gate_seconds}
    if report.lesson:
        found["loss_before_nats"] = mean({name: report.lesson.before[name] for name in report.lesson.after})
        found["loss_after_nats"] = mean(report.lesson.after)
        found["tokens"] = report.lesson.num_tokens
    if report.base_kl is not None:
        found["base_kl_nats"] = report.base_kl
    return finite(found)
