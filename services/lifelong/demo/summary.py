"""What the demonstration saw, as numbers."""

from __future__ import annotations

import msgspec


class Asked(msgspec.Struct):
    """One question through all stages. The model's own words each time."""

    question: str
    right: str
    before: str = ""
    memory_only: str = ""
    after: str = ""
    knew_before: bool = False
    knew_from_memory: bool = False
    knows_after: bool = False


class Summary(msgspec.Struct):
    asked: list[Asked] = []
    version_before: str = ""
    version_after: str = ""
    weights_before: str = ""
    weights_after: str = ""
    versions_promoted: int = 0
    versions_rejected: int = 0
    events_published: int = 0
    samples_trained: int = 0
    seconds_to_learn_all: float = 0.0
    freshness_seconds: float | None = None
    """A lone event published to the idle system, to the first answer from a version that learned it."""
    lone_answer: str = ""
    lone_right: bool = False
    dead_letters: dict[str, int] = {}
    student: str | None = None
    student_answer: str = ""
    metrics: dict[str, str] = {}

    @property
    def num_before(self) -> int:
        return sum(asked.knew_before for asked in self.asked)

    @property
    def num_from_memory(self) -> int:
        return sum(asked.knew_from_memory for asked in self.asked)

    @property
    def num_after(self) -> int:
        return sum(asked.knows_after for asked in self.asked)

    def learning_was_seen(self) -> bool:
        """Weights changed, more questions are answered right with memory off than before, and the lone one as well."""
        return self.weights_before != self.weights_after and self.num_after > self.num_before and self.lone_right
