"""What the collector shows of itself on its metrics port."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lifelong.collector.answers import Result
from lifelong.collector.handler import UNKNOWN_TYPE, Handled
from lifelong.contracts import metrics as names
from lifelong.runtime.clock import Clock
from lifelong.runtime.metrics import Metrics
from lifelong.stream.base import Partition, Record

# Tasks are named by applications, and every value of a label is a time series for ever.
_MAX_TASKS = 30


class Observed:
    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._last_time: dict[Partition, float] = {}
        self._tasks: set[str] = set()

    def collected(
        self, records: Sequence[Record], handled: Sequence[Handled], masked: Mapping[str, int], seconds: float
    ) -> None:
        """One poll, once everything of it is written and acknowledged."""
        for record, one in zip(records, handled, strict=True):
            self._metrics.count(names.RECORDS, topic=record.topic)
            self._metrics.count(names.EVENTS, type=one.type, outcome=one.record.outcome)
            self._last_time[Partition(record.topic, record.partition)] = record.time
        for kind, number in masked.items():
            self._metrics.count(names.MASKED, number, kind=kind)
        self._metrics.observe(names.COLLECT_SECONDS, seconds)

    def compared(self, results: Sequence[tuple[str, Result]]) -> None:
        """Answers with the labels that came for them: task, result."""
        for task, result in results:
            known = task in self._tasks or len(self._tasks) < _MAX_TASKS
            if known:
                self._tasks.add(task)
            self._metrics.count(names.TASK_ANSWERS, task=task if known else "other", result=result)

    def lost(self, num_events: int) -> None:
        self._metrics.count(names.EVENTS, num_events, type=UNKNOWN_TYPE, outcome="lost")

    def waiting(self, pending: Mapping[Partition, int]) -> None:
        for partition, num_records in pending.items():
            labels = {"topic": partition.topic, "partition": str(partition.number)}
            last = self._last_time.get(partition, self._clock.now())
            self._metrics.set(names.LAG_RECORDS, num_records, **labels)
            self._metrics.set(names.LAG_SECONDS, max(0.0, self._clock.now() - last) if num_records else 0.0, **labels)
