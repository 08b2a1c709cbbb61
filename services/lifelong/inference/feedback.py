"""Feedback by the id of an answer, made into an event that stands on its own."""

from __future__ import annotations

import uuid

from lifelong.contracts import metrics as names
from lifelong.contracts import topics
from lifelong.contracts.codec import encode_event, type_name
from lifelong.contracts.events import Event, Feedback
from lifelong.errors import UnknownVersionError
from lifelong.inference.outputs import Outputs
from lifelong.inference.wire import BadFieldError, FeedbackBody
from lifelong.runtime.clock import Clock
from lifelong.runtime.metrics import Metrics
from lifelong.stream.base import Sink


class UnknownOutputError(UnknownVersionError):
    """No answer has this id, or it is too long ago."""


class FeedbackDesk:
    def __init__(self, outputs: Outputs, sink: Sink, metrics: Metrics, clock: Clock, source: str) -> None:
        self._outputs = outputs
        self._sink = sink
        self._metrics = metrics
        self._clock = clock
        self._source = source

    def give(self, body: FeedbackBody) -> str:
        """Publishes the event and waits until Kafka has it; the id of the event.

        The event carries question and answer itself: what it means must not depend on what is kept elsewhere.

        Raises:
            BadFieldError: neither rating nor correction. UnknownOutputError. UnreachableError.
        """
        if body.rating is None and body.correction is None:
            raise BadFieldError("correction", "feedback needs a correction, a rating, or both")
        output = self._outputs.find(body.output_id)
        if output is None:
            raise UnknownOutputError(f"no answer with output_id {body.output_id!r} is kept")
        data = Feedback(
            messages=output.messages,
            answer=output.answer,
            correction=body.correction,
            rating=body.rating,
            output_id=output.id,
            user=body.user or output.user,
        )
        event = Event(
            id=str(uuid.uuid4()), source=self._source, type=type_name(data), data=data, time=self._clock.now()
        )
        value, headers = encode_event(event)
        key = data.user.encode() if data.user else None
        self._sink.send(topics.EVENTS.name, value, key=key, headers=headers)
        self._sink.flush()
        self._metrics.count(names.FEEDBACK, kind="correction" if data.correction else "rating")
        return event.id
