"""What is asked of the model and what it answered, on the topics requests and outputs."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lifelong.contracts.events import Message


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The value of one record of the requests topic. The answer comes on the outputs topic with the same id."""

    id: Annotated[str, Meta(min_length=1, max_length=256)]
    messages: Annotated[tuple[Message, ...], Meta(min_length=1)]
    model: str | None = None
    """A line, ``line@number``, or ``None`` for the live version of the default line."""
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    user: str | None = None
    memory: bool = True
    """Whether memory may be looked up for this answer."""


class UsedMemory(msgspec.Struct, frozen=True):
    """A memory entry that was put before the model, and why."""

    id: str
    event_id: str
    score: float


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of one record of the outputs topic: an answer, and all that is needed to trace it."""

    id: str
    """Deterministic: the same request answered by the same version has the same output id."""
    request_id: str
    version: str
    """``line@number``; ``line@0`` is the base model before anything was learned."""
    base: str
    messages: tuple[Message, ...]
    answer: str
    finish_reason: Literal["stop", "length", "error"]
    created: float
    """Seconds since 1970."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    memories: tuple[UsedMemory, ...] = ()
    user: str | None = None
    latency_seconds: float = 0.0
    newest_event_time: float | None = None
    """Seconds since 1970: how fresh the version is that answered."""
    error: str | None = None
