"""A guess that never reads the text: what a stream whose labels come in bursts gives away for nothing.

A learner that only follows the labels of late looks as if it learnt, as long as it is asked about what comes next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from benchmarks.learning.exams import Exam, Share, Shares, answer

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner


class Blind:
    """Says the label that was the most frequent of the last ``window`` ones; of equals the newest."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._told: list[tuple[str, str]] = []
        """Task and label."""

    def put(self, samples: Sequence[Sample]) -> None:
        self._told += [(sample.task, answer(sample)) for sample in samples]

    def exam(self, exam: Exam) -> Exam:
        """``class_incremental`` and ``task_incremental`` as a model would be asked for them; ``exam`` is not asked."""

        def examine(learner: Learner, samples: Sequence[Sample]) -> Shares:
            guess = self._guess([label for _, label in self._told])
            of_task = {
                task: self._guess([label for other, label in self._told if other == task])
                for task in {sample.task for sample in samples}
            }
            right = sum(answer(sample) == guess for sample in samples)
            right_of_task = sum(answer(sample) == of_task[sample.task] for sample in samples)
            return {
                "class_incremental": Share(right, len(samples)),
                "task_incremental": Share(right_of_task, len(samples)),
            }

        return examine

    def _guess(self, labels: Sequence[str]) -> str | None:
        counts = Counter(labels[-self._window :])
        # A counter keeps the order in which labels first came; of equals the one that came last is wanted.
        newest = {label: at for at, label in enumerate(labels)}
        return max(counts, key=lambda label: (counts[label], newest[label]), default=None)
