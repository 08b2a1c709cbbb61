"""What the trainer shows of itself on its metrics port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lifelong.contracts import metrics as names
from lifelong.registry.base import PointerState
from lifelong.runtime.clock import Clock
from lifelong.runtime.metrics import Metrics
from lifelong.stream.base import Partition, Record
from lifelong.trainer.handler import Candidate, Trainer

# Tasks are named by applications, and every value of a label is a time series for ever.
_MAX_TASKS = 30


class Observed:
    def __init__(self, metrics: Metrics, line: str, clock: Clock) -> None:
        self._metrics = metrics
        self._line = line
        self._clock = clock
        self._tasks: set[str] = set()
        self._last_time: dict[int, float] = {}
        self._num_steps = 0
        self._num_drifts = 0
        self._shown: dict[str, set[str]] = {}
        """Name of a metric of tasks → those it has a series of."""

    def started(self, trainer: Trainer, state: PointerState, epoch: int) -> None:
        self._metrics.set(names.EPOCH, epoch, line=self._line)
        self._num_drifts = trainer.schooling.signals.drift.num_seen
        self._version(trainer.number, state.live)
        self._state(trainer)

    def taken(self, record: Record, found: Literal["new", "duplicate", "gap"]) -> None:
        self._metrics.count(names.RECORDS, topic=record.topic)
        self._last_time[record.partition] = record.time
        if found == "duplicate":
            self._metrics.count(names.SAMPLE_DUPLICATES)
        elif found == "gap":
            self._metrics.count(names.SAMPLE_GAPS)

    def waiting(self, trainer: Trainer, pending: Mapping[Partition, int]) -> None:
        self._metrics.set(names.PENDING_SAMPLES, trainer.intake.num_samples)
        for partition, num_records in pending.items():
            labels = {"topic": partition.topic, "partition": str(partition.number)}
            last = self._last_time.get(partition.number, self._clock.now())
            self._metrics.set(names.LAG_RECORDS, num_records, **labels)
            self._metrics.set(names.LAG_SECONDS, max(0.0, self._clock.now() - last) if num_records else 0.0, **labels)

    def stepped(self, num_done: int) -> None:
        """Of the micro-batch that is being learnt, since the last call. Those of one that is interrupted count too."""
        self._metrics.count(names.STEPS, max(0, num_done - self._num_steps))
        self._num_steps = num_done

    def learnt(self, trainer: Trainer, candidate: Candidate, live: int, commit_seconds: float) -> None:
        manifest, _, report = candidate
        accepted = report.verdict.accepted
        self._version(manifest.number, live)
        self._metrics.count(names.VERSIONS, line=self._line, verdict="accepted" if accepted else "rejected")
        refused = [sample for part in report.refused for sample in part.samples]
        for fate, samples in (("trained", report.learnt), ("rejected", refused), ("held-out", report.held_out)):
            for sample in samples:
                self._metrics.count(names.SAMPLES, fate=fate, task=self._task(sample.task))
        for stage in ("queue", "linger", "step", "gate"):
            if (seconds := manifest.metrics.get(f"{stage}_seconds")) is not None:
                self._metrics.observe(names.STAGE_SECONDS, seconds, stage=stage)
        self._metrics.observe(names.STAGE_SECONDS, commit_seconds, stage="commit")
        self.stepped(report.lesson.num_steps if report.lesson else 0)
        self._num_steps = 0
        if report.lesson:
            for sample in report.new:
                loss = report.lesson.before[sample.id]
                self._metrics.observe(names.PREQUENTIAL_LOSS, loss, task=self._task(sample.task))
            self._metrics.set(names.TRAIN_LOSS, report.lesson.last_loss)
            self._metrics.observe(names.STEPS_PER_BATCH, report.lesson.num_steps)
            self._metrics.count(names.TOKENS, report.lesson.num_tokens)
        for part in ("recent", "older", "probe", "general"):
            if f"{part}_after" in report.verdict.scores:
                self._metrics.set(names.HELD_OUT_LOSS, report.verdict.scores[f"{part}_after"], slice=part)
        if report.base_kl is not None:
            self._metrics.set(names.BASE_KL, report.base_kl)
        self._state(trainer)

    def relearning(self, num_batches: int) -> None:
        self._metrics.set(names.RELEARNING, num_batches)

    def _version(self, committed: int, live: int) -> None:
        self._metrics.set(names.VERSION, committed, line=self._line, pointer="committed")
        self._metrics.set(names.VERSION, live, line=self._line, pointer="live")

    def _state(self, trainer: Trainer) -> None:
        self._signals(trainer)
        self._metrics.set(names.REPLAY_SAMPLES, len(trainer.schooling.replay))
        for partition, offset in trainer.watermarks.items():
            self._metrics.set(names.WATERMARK, offset, partition=str(partition))

    def _signals(self, trainer: Trainer) -> None:
        signals = trainer.schooling.signals
        for metric, by_task in (
            (names.PREQUENTIAL_MEAN, signals.prequential.losses),
            (names.PREQUENTIAL_ACCURACY, signals.prequential.accuracies),
            (names.FORGETTING, signals.transfer.forgetting),
            (names.BACKWARD_TRANSFER, signals.transfer.backward),
            (names.FORWARD_TRANSFER, signals.transfer.forward),
            (names.PLASTICITY_LOSS, signals.transfer.learnt_losses),
        ):
            # Those beyond the bound cannot be put together into one mean.
            shown = {task: value for task, value in by_task.items() if self._task(task) == task}
            for task, value in shown.items():
                self._metrics.set(metric, value, task=task)
            # Nothing of it is held out any more, or it was forgotten.
            for task in self._shown.get(metric.name, set()) - shown.keys():
                self._metrics.remove(metric, task=task)
            self._shown[metric.name] = set(shown)
        if signals.transfer.anytime is not None:
            self._metrics.set(names.ANYTIME_LOSS, signals.transfer.anytime)
        # Fewer than before: what was to be forgotten had drifted.
        self._metrics.count(names.DRIFTS, max(0, signals.drift.num_seen - self._num_drifts))
        self._num_drifts = signals.drift.num_seen
        self._metrics.set(names.DRIFT_RAISED, float(signals.drift.is_raised(trainer.number + 1)))

    def _task(self, task: str) -> str:
        if task not in self._tasks and len(self._tasks) >= _MAX_TASKS:
            return "other"
        self._tasks.add(task)
        return task
