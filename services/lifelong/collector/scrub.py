"""Each type of event, cleaned, masked and held to its limits.

What is left of the data is what is learned and remembered. Ids and names of users, tasks and items are keys: they are
checked for length and left alone.
"""

from __future__ import annotations

from msgspec.structs import replace

from lifelong.collector.clean import clean, num_letters, tidy
from lifelong.collector.config import CollectorSettings
from lifelong.collector.markup import to_text
from lifelong.collector.mask import Masker
from lifelong.collector.repetition import repetition
from lifelong.contracts.events import (
    Dialogue,
    Document,
    Event,
    EventData,
    Fact,
    Feedback,
    Forget,
    Interaction,
    Message,
    Observation,
    Preference,
    Probe,
)
from lifelong.errors import DecodeError

MAX_ID_CHARS = 512
MAX_TITLE_CHARS = 300


class Scrubber:
    def __init__(self, settings: CollectorSettings, masker: Masker) -> None:
        self._settings = settings
        self._masker = masker

    def scrub(self, event: Event) -> Event:
        """
        Raises:
            DecodeError: ``bad-attribute``, ``bad-data``, ``garbled``, ``too-short``, ``too-long`` or ``repetitive``.
        """
        for name in ("id", "source"):
            if len(getattr(event, name)) > MAX_ID_CHARS:
                raise DecodeError("bad-attribute", f"{name} has more than {MAX_ID_CHARS} characters")
        for name in ("user", "task", "item", "action", "observation_id"):
            if len(getattr(event.data, name, None) or "") > MAX_ID_CHARS:
                raise DecodeError("bad-data", f"{name} has more than {MAX_ID_CHARS} characters")
        return replace(event, data=self._data(event.data))

    def _data(self, data: EventData) -> EventData:
        match data:
            case Document():
                return self._document(data)
            case Dialogue():
                messages = self._messages(data.messages)
                answers = [message.content for message in messages if message.role == "assistant"]
                if not answers:
                    raise DecodeError("bad-data", "no assistant turn with text: there is nothing to learn")
                self._check_repetition("\n\n".join(answers))
                return replace(data, messages=messages)
            case Feedback():
                return self._feedback(data)
            case Preference():
                return replace(
                    data,
                    messages=self._question(data.messages),
                    chosen=self._needed("chosen", data.chosen),
                    rejected=self._needed("rejected", data.rejected),
                )
            case Interaction():
                return replace(data, item_text=self._optional(data.item_text))
            case Observation():
                return self._observation(data)
            case Fact():
                return replace(
                    data,
                    subject=self._needed("subject", data.subject),
                    relation=self._needed("relation", data.relation),
                    object=self._needed("object", data.object),
                    question=self._optional(data.question),
                )
            case Forget():
                if not data.event_ids and not data.user:
                    raise DecodeError("bad-data", "neither event_ids nor user: what is to be forgotten?")
                return data
            case Probe():
                # As it would be in a sample to be learnt: else a mask would make it less likely.
                return replace(
                    data, question=self._needed("question", data.question), answer=self._needed("answer", data.answer)
                )

    def _document(self, data: Document) -> Document:
        # Twice, because markup may spell in entities what must not be in a text.
        text = tidy(clean(to_text(clean(data.text))))
        if num_letters(text) < self._settings.min_document_chars:
            raise DecodeError("too-short", f"fewer than {self._settings.min_document_chars} letters and digits")
        self._check_repetition(text)
        title = self._optional(data.title)
        if title is not None:
            title = " ".join(title.split())[:MAX_TITLE_CHARS]
        return replace(data, text=self._masker.mask(text), title=title)

    def _feedback(self, data: Feedback) -> Feedback:
        correction = None if data.correction is None else self._needed("correction", data.correction)
        answer = self._optional(data.answer)
        if correction is None and (answer is None or data.rating is None):
            raise DecodeError("bad-data", "neither a correction nor a rated answer: there is nothing to learn")
        return replace(data, messages=self._question(data.messages), answer=answer, correction=correction)

    def _observation(self, data: Observation) -> Observation:
        text, label = self._optional(data.input), self._optional(data.label)
        if text is None and label is None:
            raise DecodeError("bad-data", "neither input nor label")
        if (text is None or label is None) and not data.observation_id:
            raise DecodeError("bad-data", "input and label come apart, so they need an observation_id to be joined by")
        return replace(data, input=text, label=label)

    def _question(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        cleaned = self._messages(messages)
        if not cleaned or cleaned[-1].role != "user":
            raise DecodeError("bad-data", "messages must end with the question, a user turn with text")
        return cleaned

    def _messages(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Turns without text are left out."""
        cleaned = []
        for message in messages:
            if (content := self._optional(message.content)) is not None:
                cleaned.append(Message(role=message.role, content=content))
        self._check_length(sum(len(message.content) for message in cleaned))
        return tuple(cleaned)

    def _needed(self, name: str, text: str) -> str:
        cleaned = self._optional(text)
        if cleaned is None:
            raise DecodeError("too-short", f"{name} has no text")
        return cleaned

    def _optional(self, text: str | None) -> str | None:
        """No markup is removed and no blanks are collapsed: these are somebody's own words, often with code in them."""
        if text is None:
            return None
        cleaned = clean(text)
        self._check_length(len(cleaned))
        return self._masker.mask(cleaned) or None

    def _check_length(self, num_chars: int) -> None:
        if num_chars > self._settings.max_chat_chars:
            raise DecodeError("too-long", f"{num_chars} characters; at most {self._settings.max_chat_chars}")

    def _check_repetition(self, text: str) -> None:
        if (problem := repetition(text, self._settings.repetition_factor)) is not None:
            raise DecodeError("repetitive", problem)
