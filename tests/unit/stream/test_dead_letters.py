"""What is refused is kept, with its reason; and a process that refuses nearly everything stops."""

from __future__ import annotations

from typing import Any

import pytest

from lifelong.contracts import metrics as names
from lifelong.contracts.topics import DLQ_HEADER_CUT, EVENTS, EVENTS_DLQ, MAX_MESSAGE_BYTES
from lifelong.errors import DecodeError, TooManyDeadLettersError
from lifelong.runtime.metrics import Metrics
from lifelong.stream.base import Record
from lifelong.stream.dead_letters import DeadLetterLimit, DeadLetters
from lifelong.stream.memory import MemoryBroker

ERROR = DecodeError("not-json", "line 1, column 5: ü")


def record(**changes: Any) -> Record:
    given = {"key": b"k", "value": b"v", "headers": (("a", b"1"),), "time": 12.5} | changes
    return Record(topic=EVENTS.name, partition=3, offset=17, **given)


class Post:
    def __init__(self, limit: DeadLetterLimit | None = None) -> None:
        self.broker = MemoryBroker({EVENTS_DLQ.name: 1})
        self.metrics = Metrics("collector")
        self.letters = DeadLetters(self.broker.sink(), "collector", self.metrics, limit or DeadLetterLimit())

    def send(self, sent: Record) -> Record:
        self.letters.send(sent, ERROR)
        self.letters.flush()
        return self.broker.records(EVENTS_DLQ.name)[-1]


def test_a_letter_is_the_record_as_it_came_with_where_it_came_from_and_why() -> None:
    letter = Post().send(record())
    assert (letter.key, letter.value, letter.time) == (b"k", b"v", 12.5)
    assert letter.headers == (
        ("a", b"1"),
        ("lifelong.dlq.topic", b"lifelong.events.v1"),
        ("lifelong.dlq.partition", b"3"),
        ("lifelong.dlq.offset", b"17"),
        ("lifelong.dlq.reason", b"not-json"),
        ("lifelong.dlq.detail", "line 1, column 5: ü".encode()),
        ("lifelong.dlq.process", b"collector"),
    )


def test_letters_are_counted_by_reason() -> None:
    post = Post()
    post.send(record())
    post.send(record())
    assert post.metrics.value(names.DEAD_LETTERS, topic=EVENTS.name, reason="not-json") == 2


@pytest.mark.parametrize(
    ("key", "value", "sent_value"), [(None, b"v", b"v"), (b"k", None, None), (None, b"", b""), (None, None, b"")]
)
def test_what_has_no_key_or_no_value_is_kept(key: bytes | None, value: bytes | None, sent_value: bytes | None) -> None:
    letter = Post().send(record(key=key, value=value))
    assert (letter.key, letter.value) == (key, sent_value)


def test_a_detail_with_half_a_character_is_no_reason_to_stop() -> None:
    post = Post()
    post.letters.send(record(), DecodeError("bad-text", "\ud800"))
    assert dict(post.broker.records(EVENTS_DLQ.name)[0].headers)["lifelong.dlq.detail"] == b"?"


def test_what_just_fits_is_whole() -> None:
    value = bytes(MAX_MESSAGE_BYTES - 300 * 1024)
    letter = Post().send(record(value=value))
    assert letter.value == value
    assert DLQ_HEADER_CUT not in dict(letter.headers)


@pytest.mark.parametrize(
    "large",
    [
        {"value": b"x" * (MAX_MESSAGE_BYTES + 1)},
        {"key": bytes(MAX_MESSAGE_BYTES)},
        {"headers": (("a", bytes(MAX_MESSAGE_BYTES)),)},
    ],
)
def test_what_would_not_fit_is_cut(large: dict[str, object]) -> None:
    sent = record(**large)
    letter = Post().send(sent)
    assert (sent.value or b"").startswith(letter.value or b"")
    assert len(letter.value or b"") + len(letter.key or b"") <= 2 * 1024 * 1024
    headers = dict(letter.headers)
    assert headers[DLQ_HEADER_CUT] == str(len(sent.value or b"")).encode()
    assert headers["lifelong.dlq.offset"] == b"17"
    assert "a" not in headers


def test_stops_when_nearly_everything_is_refused() -> None:
    post = Post(DeadLetterLimit(window_records=100, max_ratio=0.5, min_records=20))
    for _ in range(20):
        post.send(record())
    with pytest.raises(TooManyDeadLettersError, match=r"21 of the last 21 records.*dead-letter limit"):
        post.send(record())
    # This one is on its way too.
    assert len(post.broker.records(EVENTS_DLQ.name)) == 21


def test_does_not_stop_while_enough_is_good() -> None:
    post = Post(DeadLetterLimit(window_records=100, max_ratio=0.5, min_records=20))
    for _ in range(300):
        post.letters.note_good()
        post.send(record())


def test_forgets_what_is_long_past() -> None:
    post = Post(DeadLetterLimit(window_records=100, max_ratio=0.5, min_records=20))
    for _ in range(20):
        post.send(record())
    for _ in range(100):
        post.letters.note_good()
    for _ in range(20):
        post.send(record())


def test_few_refusals_never_stop_it() -> None:
    post = Post(DeadLetterLimit(window_records=100, max_ratio=0, min_records=5))
    for _ in range(5):
        post.send(record())
    with pytest.raises(TooManyDeadLettersError):
        post.send(record())
