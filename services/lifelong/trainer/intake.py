"""The books of what came: every source offset is taken in once, in order, and none is passed over.

A record is taken in if it covers the watermark of its source partition (see ``coverage``). It waits, whole, until a
micro-batch takes it, and only then do watermark and position become part of a version: after a crash it is read again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lifelong.contracts.events import Forget
from lifelong.contracts.samples import Sample, SampleRecord, coverage
from lifelong.trainer.config import TrainerSettings

Trigger = Literal["size", "age", "idle", "flush"]


@dataclass
class Entry:
    """One record that was taken in, or several after each other that carry no samples."""

    samples: list[Sample] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    """Number of records by outcome, and samples ``forgotten`` before they were learnt."""
    watermarks: dict[int, int] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    forgets: list[Forget] = field(default_factory=list)
    taken_at: float = 0.0
    """Of a monotonic clock."""

    def absorb(self, later: Entry) -> None:
        """Keeps ``taken_at``: what has waited longest counts."""
        self.samples += later.samples
        self.outcomes += later.outcomes
        self.watermarks |= later.watermarks
        self.positions |= later.positions
        self.forgets += later.forgets


class Intake:
    """Args: watermarks, by source partition, as of the version that is recovered from."""

    def __init__(self, settings: TrainerSettings, watermarks: Mapping[int, int]) -> None:
        self._settings = settings
        self._waiting: deque[Entry] = deque()
        self._last_taken_at = 0.0
        self.watermarks = dict(watermarks)
        """Of what was taken in, waiting included."""
        self.num_samples = 0

    @property
    def is_full(self) -> bool:
        return self.num_samples >= self._settings.max_pending_samples

    def take(self, record: SampleRecord, partition: int, offset: int, now: float) -> Literal["new", "duplicate", "gap"]:
        """``partition`` and ``offset``: of the record itself, in the samples topic."""
        source = record.source_partition
        found = coverage(record, self.watermarks.get(source, 0))
        if found != "new":
            return found
        self.watermarks[source] = record.to_offset
        entry = Entry(
            list(record.samples),
            Counter([record.outcome]),
            {source: record.to_offset},
            {partition: offset + 1},
            [record.forget] if record.forget else [],
            now,
        )
        if record.forget:
            self._forget(record.forget)
        self.num_samples += len(entry.samples)
        if entry.samples:
            self._last_taken_at = now
        if self._waiting and not entry.samples and not self._waiting[-1].samples:
            self._waiting[-1].absorb(entry)
        else:
            self._waiting.append(entry)
        return found

    def ready(self, now: float) -> Trigger | None:
        """Whether a micro-batch should be learnt now, and why. Records without samples wait for those with."""
        if not self.num_samples:
            return None
        if self.num_samples >= self._settings.batch_size:
            return "size"
        if now - self._oldest() >= self._settings.linger_seconds:
            return "age"
        return "idle" if now - self._last_taken_at >= self._settings.idle_seconds else None

    def seconds_to_trigger(self, now: float) -> float | None:
        """Until ``ready`` turns true if nothing more comes; ``None``: never."""
        if not self.num_samples:
            return None
        due = min(self._oldest() + self._settings.linger_seconds, self._last_taken_at + self._settings.idle_seconds)
        return max(0.0, due - now) if self.num_samples < self._settings.batch_size else 0.0

    def next_batch(self) -> Entry:
        """Whole records in the order they came, until there are ``batch_size`` samples, and the records without
        samples that follow."""
        batch = Entry(taken_at=self._oldest())
        while self._waiting and (len(batch.samples) < self._settings.batch_size or not self._waiting[0].samples):
            batch.absorb(self._waiting.popleft())
        self.num_samples -= len(batch.samples)
        return batch

    def _oldest(self) -> float:
        return next(entry.taken_at for entry in self._waiting if entry.samples)

    def _forget(self, forget: Forget) -> None:
        unwanted = is_unwanted(forget)
        for entry in self._waiting:
            kept = [sample for sample in entry.samples if not unwanted(sample)]
            num_gone = len(entry.samples) - len(kept)
            if num_gone:
                entry.outcomes["forgotten"] += num_gone
                entry.samples = kept
                self.num_samples -= num_gone


def is_unwanted(forget: Forget) -> Callable[[Sample], bool]:
    event_ids = frozenset(forget.event_ids)
    return lambda sample: sample.event_id in event_ids or (forget.user is not None and sample.user == forget.user)
