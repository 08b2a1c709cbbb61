"""What is remembered, put before the model as something it can use.

A memory becomes a turn of the conversation, told and confirmed just before the question at hand: a small model takes up
what it "said" itself far sooner than what a system prompt tells it. Right answers of SmolLM2-135M to the 80 questions
of ``benchmarks/bench_recall.py``, from corrections: told and confirmed 74, a system note 62, plain turns 61, in the
question 39; from texts: told and confirmed 72, a system note 63, an earlier answer 60, in the question 53.
"""

from __future__ import annotations

from collections.abc import Sequence

from lifelong.contracts.events import Message
from lifelong.contracts.requests import UsedMemory
from lifelong.inference.config import MemorySettings
from lifelong.learning.reading import told
from lifelong.memory.base import Hit
from lifelong.memory.index import MemoryIndex
from lifelong.runtime.clock import Clock


class Recall:
    def __init__(self, index: MemoryIndex, settings: MemorySettings, clock: Clock) -> None:
        self._index = index
        self._settings = settings
        self._clock = clock

    def search(self, messages: Sequence[Message], user: str | None) -> list[Hit]:
        """By the last thing the user said; only memories that this user may see."""
        question = next((message.content for message in reversed(messages) if message.role == "user"), None)
        if question is None or not self._settings.entries:
            return []
        hits = self._index.search(
            question,
            user=user,
            k=self._settings.entries,
            min_score=self._settings.min_score,
            now=self._clock.now(),
        )
        return [hit for hit in hits if hit.score >= hits[0].score - self._settings.max_gap]

    def put_before(self, messages: Sequence[Message], hits: Sequence[Hit]) -> tuple[Message, ...]:
        # Before the question, after what was said up to then. A beginning of the answer may follow the question.
        at = max((index for index, message in enumerate(messages) if message.role == "user"), default=0)
        turns: list[Message] = []
        # The best match last: what stands nearest to the question weighs most.
        for hit in reversed(hits):
            entry = hit.entry
            if entry.question is not None and entry.answer is not None:
                answer = self._cut(entry.answer)
                turns += told(f"{self._cut(entry.question)} {answer}", answer)
            else:
                text = self._cut(entry.text)
                turns += told(text, text)
        return (*messages[:at], *turns, *messages[at:])

    def _cut(self, text: str) -> str:
        limit = self._settings.max_chars
        return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def used(hits: Sequence[Hit]) -> tuple[UsedMemory, ...]:
    return tuple(UsedMemory(hit.entry.id, hit.entry.event_id, round(hit.score, 4)) for hit in hits)
