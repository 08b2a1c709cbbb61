"""Whether what was answered is what turned out to be right: answers and the labels that come later, joined by id.

Whoever asks the model for a label and hears later what it was publishes that as an observation whose
``observation_id`` is the id of the answer (``output_id``), with the input or without. Then the label is compared with
the answer that was given: by the version that was served, with the memory it had. (How well the trainer knew a sample
when it came to learn it is another number, the prequential accuracy.)

For people to look at, and for nothing else: nothing is decided by it, an answer that is not kept any more is not
counted, and neither is any while Redis is away. A label that is read again after a crash counts again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from lifelong.contracts import redis_keys
from lifelong.contracts.codec import decode
from lifelong.contracts.events import EventData, Observation
from lifelong.contracts.requests import Output
from lifelong.errors import DecodeError, UnreachableError
from lifelong.runtime.redis import connect_redis, redis_errors

log = logging.getLogger(__name__)

Result = Literal["correct", "wrong"]


class AnswerStore(Protocol):
    def answers(self, output_ids: Sequence[str]) -> list[str | None]:
        """What was answered; ``None``: nothing, or it is not known any more.

        Raises:
            UnreachableError: not now.
        """
        ...


class RedisAnswers:
    """Where the servers put each answer for feedback to find it."""

    def __init__(self, url: str, line: str) -> None:
        self._url = url
        self._client = connect_redis(url)
        self._line = line

    def answers(self, output_ids: Sequence[str]) -> list[str | None]:
        if not output_ids:
            return []
        with redis_errors(self._url):
            pipeline = self._client.pipeline(transaction=False)
            for output_id in output_ids:
                pipeline.get(redis_keys.output(self._line, output_id))
            found: list[bytes | None] = pipeline.execute()
        return [_answer(value) for value in found]


class Labelled(msgspec.Struct, frozen=True):
    """A label that has come, and the id of what it is the label of."""

    task: str
    output_id: str
    label: str


def labelled(data: EventData) -> Labelled | None:
    """``None``: no label, or nothing that it could be the label of."""
    if not isinstance(data, Observation) or data.label is None or data.observation_id is None:
        return None
    return Labelled(data.task, data.observation_id, data.label)


def compare(store: AnswerStore, labels: Sequence[Labelled]) -> list[tuple[str, Result]]:
    """(task, result) of those that were answered. Space around an answer does not make it another."""
    try:
        answers = store.answers([one.output_id for one in labels])
    except UnreachableError as error:
        log.debug("%d labels are not compared with what was answered: %s", len(labels), error)
        return []
    return [
        (one.task, "correct" if answer.strip() == one.label.strip() else "wrong")
        for one, answer in zip(labels, answers, strict=True)
        if answer is not None
    ]


def _answer(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        output = decode(value, Output)
    except DecodeError as error:
        log.debug("not an answer: %s", error)
        return None
    return None if output.finish_reason == "error" else output.answer
