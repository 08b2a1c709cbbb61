"""The books of what came: every source offset is taken in once, in order, and none is passed over.

A record is taken in if it covers the watermark of its source partition (see ``coverage``). It waits, whole, until a
micro-batch takes it, and only then do watermark and position become part of a version: after a crash it is read again.

A request to forget ends what waits: that is learnt first, without what is to be forgotten, and then the request makes
a version of its own. So everything that a version of a lower number has learnt came before it, and nothing else did.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lifelong.contracts.events import Forget
from lifelong.contracts.samples import Sample, SampleRecord, coverage, must_be_forgotten
from lifelong.trainer.config import TrainerSettings

Trigger = Literal["size", "age", "idle", "flush", "forget"]


@dataclass
class Entry:
    """One record that was taken in, or several after each other that carry neither samples nor probes."""

    samples: list[Sample] = field(default_factory=list)
    probes: list[Sample] = field(default_factory=list)
    """To be judged by and never learnt. They wait for a micro-batch as samples do, and make one if nothing else
    comes. A probe that is forgotten while it waits goes when the request makes its version: until then it was there."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Number of records by outcome, and samples ``forgotten`` before they were learnt."""
    watermarks: dict[int, int] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    forgets: list[Forget] = field(default_factory=list)
    taken_at: float = 0.0
    """Of a monotonic clock."""

    @property
    def num_samples(self) -> int:
        """Probes included."""
        return len(self.samples) + len(self.probes)

    def absorb(self, later: Entry) -> None:
        """Keeps ``taken_at``: what has waited longest counts."""
        self.samples += later.samples
        self.probes += later.probes
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
        self._num_to_forget = 0
        self._to_withdraw: list[Forget] = []
        self._skipped: set[int] = set()
        self.watermarks = dict(watermarks)
        """Of what was taken in, waiting included."""
        self.num_samples = 0

    @property
    def is_full(self) -> bool:
        return self.num_samples >= self._settings.max_pending_samples

    def take(self, record: SampleRecord, partition: int, offset: int, now: float) -> Literal["new", "duplicate", "gap"]:
        """``partition`` and ``offset``: of the record itself, in the samples topic."""
        source = record.source_partition
        watermark = self.watermarks.get(source, 0)
        found = coverage(record, watermark)
        outcomes: Counter[str] = Counter({record.outcome: num_events(record)})
        if found == "gap" and source in self._skipped:
            outcomes["lost"] += record.from_offset - watermark
            found = "new"
        if found != "new":
            return found
        self._skipped.discard(source)
        self.watermarks[source] = record.to_offset
        entry = Entry(
            list(record.samples),
            [record.probe] if record.probe else [],
            outcomes,
            {source: record.to_offset},
            {partition: offset + 1},
            [record.forget] if record.forget else [],
            now,
        )
        if record.forget:
            self._forget(record.forget)
            self._num_to_forget += 1
            if record.forget.at_once:
                self._to_withdraw.append(record.forget)
        self.num_samples += entry.num_samples
        if entry.num_samples:
            self._last_taken_at = now
        if self._waiting and not entry.num_samples and not self._waiting[-1].num_samples:
            self._waiting[-1].absorb(entry)
        else:
            self._waiting.append(entry)
        return found

    def skip(self, source: int) -> None:
        """Of this source partition records were deleted: the next one there is counts, and what is missing is lost."""
        self._skipped.add(source)

    def ready(self, now: float) -> Trigger | None:
        """Whether a version should be made now, and why. Records without samples wait for those with."""
        if self._num_to_forget:
            return "forget" if self._forget_is_next() else "flush"
        if not self.num_samples:
            return None
        if self.num_samples >= self._settings.batch_size:
            return "size"
        if now - self._oldest() >= self._settings.linger_seconds:
            return "age"
        return "idle" if now - self._last_taken_at >= self._settings.idle_seconds else None

    def seconds_to_trigger(self, now: float) -> float | None:
        """Until ``ready`` turns true if nothing more comes; ``None``: never."""
        if self._num_to_forget:
            return 0.0
        if not self.num_samples:
            return None
        due = min(self._oldest() + self._settings.linger_seconds, self._last_taken_at + self._settings.idle_seconds)
        return max(0.0, due - now) if self.num_samples < self._settings.batch_size else 0.0

    def next_batch(self) -> Entry:
        """Whole records in the order they came, until there are ``batch_size`` samples, and the records without
        samples that follow; or a request to forget, which has no samples beside it.

        The samples are in their canonical order, which does not depend on when which partition was read.
        """
        if self._forget_is_next():
            batch = Entry(taken_at=self._waiting[0].taken_at)
            while self._waiting and not self._waiting[0].num_samples:
                batch.absorb(self._waiting.popleft())
            self._num_to_forget -= len(batch.forgets)
            return batch
        batch = Entry(taken_at=self._oldest())
        while self._waiting and not self._waiting[0].forgets:
            if self._waiting[0].num_samples and batch.num_samples >= self._settings.batch_size:
                break
            batch.absorb(self._waiting.popleft())
        self.num_samples -= batch.num_samples
        batch.samples.sort(key=canonical)
        batch.probes.sort(key=canonical)
        return batch

    def next_forgets(self) -> list[Forget]:
        """Those that ``next_batch`` will return if the trigger is ``forget``."""
        found: list[Forget] = []
        for entry in self._waiting:
            if entry.num_samples:
                break
            found += entry.forgets
        return found

    def to_withdraw(self) -> list[Forget]:
        """Requests to forget at once that came since ``note_withdrawn``."""
        return list(self._to_withdraw)

    def note_withdrawn(self) -> None:
        self._to_withdraw.clear()

    def _forget_is_next(self) -> bool:
        for entry in self._waiting:
            if entry.num_samples:
                return False
            if entry.forgets:
                return True
        return False

    def _oldest(self) -> float:
        return next(entry.taken_at for entry in self._waiting if entry.num_samples)

    def _forget(self, forget: Forget) -> None:
        for entry in self._waiting:
            kept = [sample for sample in entry.samples if not must_be_forgotten(sample, forget)]
            num_gone = len(entry.samples) - len(kept)
            if num_gone:
                entry.outcomes["forgotten"] += num_gone
                entry.samples = kept
                self.num_samples -= num_gone


def canonical(sample: Sample) -> tuple[float, int, int, int]:
    """Where a sample stands in its micro-batch: a later statement after an earlier one, whatever was read first."""
    partition, offset, index = sample.id.split("-")
    return sample.event_time, int(partition), int(offset), int(index)


def num_events(record: SampleRecord) -> int:
    """Of what was lost before the collector could read it one record tells."""
    return record.to_offset - record.from_offset if record.outcome == "lost" else 1
