"""The trainer without its sockets: records of the samples topic in, versions out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import msgspec

from lifelong.contracts.samples import Sample, SampleRecord
from lifelong.contracts.versions import Batch, Manifest
from lifelong.errors import ConfigError, DecodeError
from lifelong.learning.gate import mean
from lifelong.model.adapter import adapter_state
from lifelong.model.hashing import combined_sha256, tensor_hashes
from lifelong.model.learner import AdapterLearner
from lifelong.runtime.clock import Clock
from lifelong.stream.base import Record
from lifelong.trainer.config import Settings
from lifelong.trainer.intake import Intake, Trigger
from lifelong.trainer.recorded import recorded_settings
from lifelong.trainer.schooling import Report, Schooling


class Candidate(NamedTuple):
    """A version that is yet to be committed; the registry fills in ``folder`` and ``files``."""

    manifest: Manifest
    files: dict[str, bytes]
    report: Report


class Trainer:
    """Drives one line. ``begin`` or ``restore`` comes first. Not safe to share between threads.

    After ``learn`` the version must be committed before anything else is learnt: what is in memory is already it.
    """

    def __init__(self, learner: AdapterLearner, settings: Settings, probes: list[Sample], clock: Clock) -> None:
        self._learner = learner
        self._settings = settings
        self._clock = clock
        self._recorded = recorded_settings(learner, settings)
        self.schooling = Schooling(learner, settings.learning, settings.gate, probes, clock)
        self.intake = Intake(settings.trainer, {})
        self.number = 0
        """Of the version in memory."""
        self.watermarks: dict[int, int] = {}
        """Source partition → first source offset that is not in the version in memory."""
        self.positions: dict[int, int] = {}
        """Samples partition → the offset to read on from."""
        self.counts: Counter[str] = Counter()
        self._newest_event_time: float | None = None

    def begin(self) -> None:
        """A line that has no versions yet."""
        self.schooling.begin(self._settings.trainer.anchor_prompts)

    def restore(self, manifest: Manifest, files: Mapping[str, bytes]) -> None:
        """Go on from the newest version, accepted or not.

        Raises:
            ConfigError: base or adapter are not those that the line was learnt with.
        """
        if manifest.base_sha256 != self._learner.base.sha256:
            raise ConfigError(
                "model.name",
                f"line {manifest.line!r} was learnt on {manifest.base} ({manifest.base_sha256[:12]}), this is "
                f"{self._learner.base.name} ({self._learner.base.sha256[:12]}); set line.name to begin a new line",
            )
        same_optimizer = manifest.settings.get("learning.optimizer") == self._settings.learning.optimizer
        try:
            self.schooling.restore(files, same_optimizer=same_optimizer)
        except ValueError as error:
            raise ConfigError("adapter", f"not that of line {manifest.line!r}: {error}") from error
        self.number = manifest.number
        self.watermarks = dict(manifest.watermarks)
        self.positions = dict(manifest.positions)
        self.counts = Counter(manifest.counts)
        self._newest_event_time = manifest.newest_event_time
        self.intake = Intake(self._settings.trainer, manifest.watermarks)

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
        begun, now = self._clock.monotonic(), self._clock.now()
        batch = self.intake.next_batch()
        report = self.schooling.learn(self.number + 1, batch.samples, batch.forgets, on_step)
        self.number += 1
        self.watermarks |= batch.watermarks
        self.positions |= batch.positions
        self.counts += batch.outcomes + _fates(report)
        if report.verdict.accepted:
            times = [sample.event_time for sample in report.new]
            self._newest_event_time = max(
                [*times, *([self._newest_event_time] if self._newest_event_time else [])], default=None
            )

        linger = begun - batch.taken_at
        queue = max(0.0, now - linger - batch.samples[0].event_time)
        tensors = tensor_hashes(adapter_state(self._learner.model))
        manifest = Manifest(
            line=self._settings.line.name,
            number=self.number,
            parent=self.number - 1,
            kind="active",
            base=self._learner.base.name,
            base_sha256=self._learner.base.sha256,
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
            metrics=_measured(report) | {"queue_seconds": queue, "linger_seconds": linger},
            verdict=report.verdict,
            newest_event_time=self._newest_event_time,
            settings=self._recorded,
        )
        return Candidate(manifest, self.schooling.files(), report)


def decode(record: Record) -> SampleRecord:
    """Raises DecodeError: ``empty`` or ``bad-samples-record``."""
    if not record.value:
        raise DecodeError("empty", "the record has no value", record.value)
    try:
        return msgspec.json.decode(record.value, type=SampleRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("bad-samples-record", str(error), record.value) from error


def _fates(report: Report) -> Counter[str]:
    learnt = "trained" if report.verdict.accepted else "rejected"
    return Counter(
        {
            learnt: len(report.new),
            "held_out": len(report.held_out),
            "superseded": report.num_superseded,
            "skipped": report.num_skipped,
        }
    )


def _measured(report: Report) -> dict[str, float]:
    found = {"step_seconds": report.step_seconds, "gate_seconds": report.gate_seconds}
    if report.lesson:
        found["loss_before_nats"] = mean(report.lesson.before)
        found["loss_after_nats"] = mean(report.lesson.after)
        found["tokens"] = report.lesson.num_tokens
    if report.base_kl is not None:
        found["base_kl_nats"] = report.base_kl
    return found
