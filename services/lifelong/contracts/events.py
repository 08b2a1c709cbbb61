"""What applications publish: the ``data`` of each CloudEvents type, and the event around it.

Source: CloudEvents 1.0.2 (https://github.com/cloudevents/spec), Kafka protocol binding 1.0.2.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

NonEmpty = Annotated[str, Meta(min_length=1)]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn, as in the OpenAI chat API."""

    role: Literal["system", "user", "assistant"]
    content: str


class _Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Document(_Data, frozen=True):
    """Text to know: an article, a manual page, a note."""

    text: NonEmpty
    title: str | None = None
    url: str | None = None
    user: str | None = None
    """Whose it is. Memory made of it is given to nobody else. ``None``: everybody's."""
    task: str = "document"


class Dialogue(_Data, frozen=True):
    """A conversation that went well enough to learn from. Every assistant turn is learnt."""

    messages: Annotated[tuple[Message, ...], Meta(min_length=1)]
    user: str | None = None
    task: str = "dialogue"


class Feedback(_Data, frozen=True):
    """What somebody thought of an answer: a rating, a better answer, or both."""

    messages: Annotated[tuple[Message, ...], Meta(min_length=1)]
    """The conversation up to the question, without the answer."""
    answer: str | None = None
    """The answer that was given."""
    correction: NonEmpty | None = None
    """What it should have been."""
    rating: Annotated[float, Meta(ge=-1, le=1)] | None = None
    """-1: useless, 1: perfect."""
    output_id: str | None = None
    user: str | None = None
    task: str = "feedback"


class Preference(_Data, frozen=True):
    """Of two answers to one question, the better one."""

    messages: Annotated[tuple[Message, ...], Meta(min_length=1)]
    chosen: NonEmpty
    rejected: NonEmpty
    user: str | None = None
    task: str = "preference"


class Interaction(_Data, frozen=True):
    """Somebody did something with an item: for recommendation."""

    user: NonEmpty
    item: NonEmpty
    action: NonEmpty = "view"
    value: float | None = None
    item_text: str | None = None
    """What the item is, in words. Without it the id is all there is to learn from."""
    task: str = "recommendation"


class Observation(_Data, frozen=True):
    """A labelled input of a task; for classification, extraction and analysis under drift.

    The label may come later in a second observation with the same ``observation_id`` (and key).
    """

    task: NonEmpty
    input: NonEmpty | None = None
    label: NonEmpty | None = None
    observation_id: str | None = None
    """Where it is the id of an answer (``output_id``), the label is also compared with that answer."""


class Fact(_Data, frozen=True):
    """Subject, relation, object; a later fact about the same subject and relation replaces the earlier."""

    subject: NonEmpty
    relation: NonEmpty
    object: NonEmpty
    question: str | None = None
    """How people ask for it. Without it: ``What is the {relation} of {subject}?``"""
    task: str = "fact"


class Forget(_Data, frozen=True):
    """Take these out again, by event id or by whose they are: what was published before this, not what comes later."""

    event_ids: tuple[NonEmpty, ...] = ()
    user: str | None = None
    at_once: bool = False
    """Serve no version that has learnt any of it from now on, instead of until it is relearnt without: answers come
    from the newest version before, which knows less."""


class Probe(_Data, frozen=True):
    """A question whose answer no version may lose. Versions are judged by it; it is never learnt and not remembered.

    A ``Forget`` with the id of its event takes it away again.
    """

    question: NonEmpty
    answer: NonEmpty
    task: NonEmpty = "probe"
    """Probes of one task are judged together, by their mean."""


EventData = Document | Dialogue | Feedback | Preference | Interaction | Observation | Fact | Forget | Probe

EVENT_TYPES: dict[str, type[EventData]] = {
    "lifelong.document": Document,
    "lifelong.dialogue": Dialogue,
    "lifelong.feedback": Feedback,
    "lifelong.preference": Preference,
    "lifelong.interaction": Interaction,
    "lifelong.observation": Observation,
    "lifelong.fact": Fact,
    "lifelong.forget": Forget,
    "lifelong.probe": Probe,
}
TYPE_OF_DATA: dict[type[EventData], str] = {data: name for name, data in EVENT_TYPES.items()}


class Event(msgspec.Struct, frozen=True):
    """A decoded CloudEvent."""

    id: str
    source: str
    type: str
    data: EventData
    time: float
    """Seconds since 1970: the ``time`` attribute, or else the time Kafka has for the record."""
    subject: str | None = None
    partitionkey: str | None = None
    traceparent: str | None = None
    expirytime: float | None = None
    """Seconds since 1970. Later than this the event is not worth learning."""
