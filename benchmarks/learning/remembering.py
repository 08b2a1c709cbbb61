"""A model that learns nothing and looks up what it was told: the memory of the server, without the weights."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from benchmarks.learning.exams import Exam, Shares

from lifelong.contracts.samples import Sample
from lifelong.inference.config import MemorySettings
from lifelong.inference.recall import Recall
from lifelong.learning.base import Learner
from lifelong.memory.base import MemoryEntry
from lifelong.memory.index import MemoryIndex
from lifelong.memory.local import LocalMemory
from lifelong.model.embedder import load_embedder
from lifelong.runtime.clock import SystemClock


class Remembering:
    """Question and answer of each sample, with the settings that a server has without any configuration."""

    def __init__(self) -> None:
        settings = MemorySettings()
        self._store = LocalMemory()
        self._index = MemoryIndex(self._store, load_embedder(settings.embedder))
        self._recall = Recall(self._index, settings, SystemClock())

    def put(self, samples: Sequence[Sample]) -> None:
        """Of two answers to a question the one with the later time holds."""
        self._store.put([entry(sample) for sample in samples])
        self._index.refresh()

    def exam(self, exam: Exam) -> Exam:
        """The same with what is remembered put before each question."""

        def examine(learner: Learner, samples: Sequence[Sample]) -> Shares:
            return exam(learner, [self.with_memories(sample) for sample in samples])

        return examine

    def with_memories(self, sample: Sample) -> Sample:
        *asked, answer = sample.messages
        told = self._recall.put_before(asked, self._recall.search(asked, None))
        # What is asked for is the last answer; the confirmations before it are only there to be read.
        return msgspec.structs.replace(sample, messages=(*told, answer), until_known=True)


def entry(sample: Sample) -> MemoryEntry:
    question, answer = sample.messages[-2].content, sample.messages[-1].content
    return MemoryEntry(
        id=sample.id,
        event_id=sample.event_id,
        text=f"{question} {answer}",
        kind="correction",
        event_time=sample.event_time,
        question=question,
        answer=answer,
    )
