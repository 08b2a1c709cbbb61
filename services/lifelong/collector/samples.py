"""What there is to learn and to remember in an event that was cleaned and is no duplicate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from lifelong.collector.chunks import cut
from lifelong.collector.config import CollectorSettings
from lifelong.collector.features import language
from lifelong.collector.joins import Half
from lifelong.contracts.events import (
    Dialogue,
    Document,
    Event,
    Fact,
    Feedback,
    Forget,
    Interaction,
    Message,
    Observation,
    Preference,
    Probe,
)
from lifelong.contracts.samples import Outcome, Sample
from lifelong.errors import DecodeError
from lifelong.memory.base import MemoryEntry

MIN_LIKED_RATING = 0.5
"""From here on an answer is worth imitating, with its rating as weight. Below, it is only reported as rated so."""


class Made(msgspec.Struct, frozen=True):
    outcome: Outcome
    samples: tuple[Sample, ...] = ()
    memory: tuple[MemoryEntry, ...] = ()
    detail: str | None = None
    forget: Forget | None = None
    probe: Sample | None = None


def make(event: Event, position: str, settings: CollectorSettings, half: Half | None = None) -> Made:
    """
    Args:
        position: ``{partition}-{offset}`` of the event.
        half: of an observation that came in two parts, the part that came before.

    Raises:
        DecodeError: ``too-long``, for a document.
    """
    maker = _Maker(event, position)
    match event.data:
        case Document():
            return maker.document(event.data, settings)
        case Dialogue():
            return maker.dialogue(event.data, settings)
        case Feedback():
            return maker.feedback(event.data)
        case Preference():
            return maker.preference(event.data)
        case Interaction():
            return maker.interaction(event.data)
        case Observation():
            return maker.observation(event.data, half)
        case Fact():
            return maker.fact(event.data)
        case Forget():
            return Made("forget", forget=event.data, detail="asked to forget")
        case Probe():
            return maker.probe(event.data)


class _Maker:
    def __init__(self, event: Event, position: str) -> None:
        self._event = event
        self._position = position

    def document(self, data: Document, settings: CollectorSettings) -> Made:
        # The title stands before the first piece in training and before every piece in memory, to be found by.
        titled = f"{data.title}\n\n{data.text}" if data.title else data.text
        pieces = cut(titled, settings.max_sample_chars)
        if len(pieces) > settings.max_samples_per_event:
            raise DecodeError(
                "too-long",
                f"{len(titled)} characters make {len(pieces)} samples; at most {settings.max_samples_per_event}: "
                "split the document into several events",
            )
        samples = [self._text(index, piece, data) for index, piece in enumerate(pieces)]
        memory = [
            self._entry(
                index, f"{data.title}\n\n{piece}" if data.title and index else piece, "document", user=data.user
            )
            for index, piece in enumerate(pieces)
        ]
        return Made("sample", tuple(samples), tuple(memory))

    def dialogue(self, data: Dialogue, settings: CollectorSettings) -> Made:
        """One sample; in memory each question with its answer, to be found one by one."""
        exchanges = [
            (question.content, answer.content)
            for question, answer in zip(data.messages, data.messages[1:], strict=False)
            if (question.role, answer.role) == ("user", "assistant")
        ]
        memory = [
            self._exchange(index, question, answer, "dialogue", user=data.user)
            for index, (question, answer) in enumerate(exchanges[-settings.max_samples_per_event :])
        ]
        return Made("sample", (self._chat(data.messages, data.task, data.user),), tuple(memory))

    def feedback(self, data: Feedback) -> Made:
        if data.correction is not None:
            rejected = data.answer if data.answer != data.correction else None
            sample = self._chat(
                _answered(data.messages, data.correction),
                data.task,
                data.user,
                rejected=rejected,
                rating=data.rating,
                until_known=True,
            )
            question = data.messages[-1].content
            memory = self._exchange(0, question, data.correction, "correction", user=data.user)
            return Made("sample", (sample,), (memory,))
        assert data.answer is not None
        assert data.rating is not None
        if data.rating >= MIN_LIKED_RATING:
            messages = _answered(data.messages, data.answer)
            sample = self._chat(messages, data.task, data.user, rating=data.rating, weight=data.rating)
        else:
            # Nothing here to imitate, so no assistant turn and no weight; a method that learns from dislike finds
            # question and answer.
            sample = self._chat(
                data.messages, data.task, data.user, rating=data.rating, rejected=data.answer, weight=0.0
            )
        return Made("sample", (sample,))

    def preference(self, data: Preference) -> Made:
        messages = _answered(data.messages, data.chosen)
        return Made("sample", (self._chat(messages, data.task, data.user, rejected=data.rejected),))

    def interaction(self, data: Interaction) -> Made:
        value = "" if data.value is None else f", value: {data.value:g}"
        question = f"User {data.user}, action: {data.action}{value}. Which item?"
        item = data.item if data.item_text is None else f"{data.item}: {data.item_text}"
        messages = (Message(role="user", content=question), Message(role="assistant", content=item))
        return Made("sample", (self._chat(messages, data.task, data.user),))

    def observation(self, data: Observation, half: Half | None) -> Made:
        """The sample belongs to the event that brought the input: whoever wants that forgotten names this event."""
        text, label, event_id = data.input, data.label, self._event.id
        if text is None and half is not None:
            text, event_id = half.text, half.event_id
        if label is None and half is not None:
            label = half.text
        if text is None or label is None:
            missing = "input" if text is None else "label"
            return Made("memory-only", detail=f"waits for the {missing} of {data.observation_id}")
        messages = (Message(role="user", content=text), Message(role="assistant", content=label))
        sample = msgspec.structs.replace(self._chat(messages, data.task, None), event_id=event_id)
        memory = msgspec.structs.replace(self._exchange(0, text, label, "observation"), event_id=event_id)
        return Made("sample", (sample,), (memory,))

    def fact(self, data: Fact) -> Made:
        question = data.question or f"What is the {data.relation} of {data.subject}?"
        messages = (Message(role="user", content=question), Message(role="assistant", content=data.object))
        sample = self._chat(messages, data.task, None, until_known=True)
        return Made("sample", (sample,), (self._exchange(0, question, data.object, "fact"),))

    def probe(self, data: Probe) -> Made:
        messages = (Message(role="user", content=data.question), Message(role="assistant", content=data.answer))
        return Made("probe", probe=self._chat(messages, data.task, None), detail="to be judged by")

    def _chat(
        self,
        messages: Sequence[Message],
        task: str,
        user: str | None,
        *,
        rejected: str | None = None,
        rating: float | None = None,
        weight: float = 1.0,
        until_known: bool = False,
    ) -> Sample:
        return Sample(
            id=f"{self._position}-0",
            event_id=self._event.id,
            event_time=self._event.time,
            task=task,
            messages=tuple(messages),
            rejected=rejected,
            rating=rating,
            weight=weight,
            until_known=until_known,
            user=user,
            language=language(" ".join(message.content for message in reversed(messages))),
            num_chars=sum(len(message.content) for message in messages),
            traceparent=self._event.traceparent,
        )

    def _text(self, index: int, text: str, data: Document) -> Sample:
        return Sample(
            id=f"{self._position}-{index}",
            event_id=self._event.id,
            event_time=self._event.time,
            task=data.task,
            text=text,
            user=data.user,
            language=language(text),
            num_chars=len(text),
            traceparent=self._event.traceparent,
        )

    def _entry(
        self,
        index: int,
        text: str,
        kind: Literal["document", "dialogue", "correction", "fact", "observation"],
        *,
        question: str | None = None,
        answer: str | None = None,
        user: str | None = None,
    ) -> MemoryEntry:
        return MemoryEntry(
            id=f"{self._position}-{index}",
            event_id=self._event.id,
            text=text,
            kind=kind,
            event_time=self._event.time,
            question=question,
            answer=answer,
            user=user,
            expires=self._event.expirytime,
        )

    def _exchange(
        self,
        index: int,
        question: str,
        answer: str,
        kind: Literal["dialogue", "correction", "fact", "observation"],
        user: str | None = None,
    ) -> MemoryEntry:
        return self._entry(index, f"{question}\n{answer}", kind, question=question, answer=answer, user=user)


def _answered(messages: tuple[Message, ...], answer: str) -> tuple[Message, ...]:
    return (*messages, Message(role="assistant", content=answer))
