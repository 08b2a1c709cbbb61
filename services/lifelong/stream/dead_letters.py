"""What cannot be read goes where people can look at it, with the reason; but not everything, silently, for ever.

Headers in the style of KIP-1034. The bound is arroyo's ``DlqLimit``: one broken producer is to be expected,
but when most of what comes is refused, the mistake is likely ours, and going on would drain the topic into the
dead letters.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated

import msgspec
from msgspec import Meta

from lifelong.contracts import metrics as names
from lifelong.contracts.topics import (
    DLQ_HEADER_CUT,
    DLQ_HEADER_DETAIL,
    DLQ_HEADER_OFFSET,
    DLQ_HEADER_PARTITION,
    DLQ_HEADER_PROCESS,
    DLQ_HEADER_REASON,
    DLQ_HEADER_TOPIC,
    MAX_MESSAGE_BYTES,
)
from lifelong.errors import DecodeError, TooManyDeadLettersError
from lifelong.runtime.metrics import Metrics
from lifelong.stream.base import Record, Sink

_DETAIL_CHARS = 1000
# Our own headers, and what Kafka puts around a record, need some room besides. A record that came packed may be larger
# than any that can be sent.
_MAX_RECORD_BYTES = MAX_MESSAGE_BYTES - 256 * 1024
_CUT_BYTES = 1024 * 1024


class DeadLetterLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Both must be exceeded before the process stops."""

    window_records: Annotated[int, Meta(ge=1)] = 2000
    """The newest records that the share is taken of."""
    max_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.9
    """Share of the window that may be refused."""
    min_records: Annotated[int, Meta(ge=0)] = 500
    """So many refusals in the window are always allowed."""


class DeadLetters:
    """Hands records over to the dead-letter topic. The caller flushes the sink before it commits."""

    def __init__(self, sink: Sink, process: str, metrics: Metrics, limit: DeadLetterLimit = DeadLetterLimit()) -> None:
        self._sink = sink
        self._process = process
        self._metrics = metrics
        self._limit = limit
        self._window: deque[bool] = deque(maxlen=limit.window_records)

    def flush(self) -> None:
        """Blocks until all letters are out."""
        self._sink.flush()

    def note_good(self) -> None:
        """A record that could be read."""
        self._window.append(False)

    def send(self, record: Record, error: DecodeError) -> None:
        """
        Raises:
            TooManyDeadLettersError: too large a share of what came lately was refused. This record was still sent.
        """
        ours = (
            (DLQ_HEADER_TOPIC, record.topic),
            (DLQ_HEADER_PARTITION, str(record.partition)),
            (DLQ_HEADER_OFFSET, str(record.offset)),
            (DLQ_HEADER_REASON, error.reason),
            (DLQ_HEADER_DETAIL, error.detail[:_DETAIL_CHARS]),
            (DLQ_HEADER_PROCESS, self._process),
        )
        headers = [(name, text.encode(errors="replace")) for name, text in ours]
        key, value = record.key, record.value
        if _num_bytes(record) > _MAX_RECORD_BYTES:
            headers.append((DLQ_HEADER_CUT, str(len(value or b"")).encode()))
            key, value = (part and part[:_CUT_BYTES] for part in (key, value))
        else:
            headers = [*record.headers, *headers]
        if key is None and value is None:
            # The client sends no record without key and value; other clients do.
            value = b""
        self._sink.send(record.topic + ".dlq", value, key=key, headers=headers, time=record.time)
        self._metrics.count(names.DEAD_LETTERS, topic=record.topic, reason=error.reason)
        self._window.append(True)
        num_refused = sum(self._window)
        if num_refused > self._limit.min_records and num_refused > self._limit.max_ratio * len(self._window):
            raise TooManyDeadLettersError(
                f"{num_refused} of the last {len(self._window)} records of {record.topic} were refused, the last one: "
                f"{error}. Mend the producer or this process, or raise the dead-letter limit, and start again: nothing "
                "is lost"
            )


def _num_bytes(record: Record) -> int:
    in_headers = sum(len(name.encode()) + len(value) for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + in_headers
