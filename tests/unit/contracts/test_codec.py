"""The edge: what is accepted as an event, and by which word each other thing is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lifelong.contracts.codec import (
    decode,
    decode_event,
    encode,
    encode_event,
    encode_event_structured,
    rfc3339,
    type_name,
)
from lifelong.contracts.events import EVENT_TYPES, Document, Event, Fact, Message
from lifelong.contracts.requests import Request
from lifelong.errors import DecodeError

MAX_BYTES = 10_000
HEADERS = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/test", "ce_type": "lifelong.document"}
BODY = b'{"text": "hello"}'


def read(value: bytes | None, headers: dict[str, str | bytes] | None = None, **options: Any) -> Event:
    raw = [(name, text.encode() if isinstance(text, str) else text) for name, text in (headers or {}).items()]
    return decode_event(value, raw, record_time=1.5, max_bytes=MAX_BYTES, **options)


def structured(**changes: Any) -> bytes:
    document = {"specversion": "1.0", "id": "1", "source": "/test", "type": "lifelong.document", "data": {"text": "hi"}}
    document.update(changes)
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def refusal(value: bytes | None, headers: dict[str, str | bytes] | None = None, **options: Any) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        read(value, headers, **options)
    return caught.value


def test_binary_mode() -> None:
    event = read(BODY, {**HEADERS, "ce_time": "2024-05-06T07:08:09.5Z", "ce_subject": "s", "ce_partitionkey": "k"})
    assert event == Event(
        id="1",
        source="/test",
        type="lifelong.document",
        data=Document(text="hello"),
        time=1714979289.5,
        subject="s",
        partitionkey="k",
    )


def test_structured_mode() -> None:
    event = read(structured(traceparent="00-1-2-01"), {"content-type": "application/cloudevents+json; charset=UTF-8"})
    assert event.data == Document(text="hi")
    assert event.traceparent == "00-1-2-01"


def test_structured_mode_is_the_default_without_any_header() -> None:
    assert read(structured()).data == Document(text="hi")


def test_the_content_type_decides_the_mode_also_when_attributes_are_in_the_headers() -> None:
    event = read(structured(id="in the value"), {**HEADERS, "content-type": "application/cloudevents+json"})
    assert event.id == "in the value"


def test_header_names_are_read_without_regard_to_case() -> None:
    upper: dict[str, str | bytes] = {"Content-Type": "application/json"}
    upper |= {"CE_" + name[3:].capitalize(): text for name, text in HEADERS.items()}
    assert read(BODY, upper).id == "1"


@pytest.mark.parametrize("content_type", ["application/json", "text/json", "application/vnd.acme+json; v=1", "", "  "])
def test_json_by_any_name(content_type: str) -> None:
    assert read(BODY, {**HEADERS, "content-type": content_type}).data == Document(text="hello")


def test_headers_of_others_may_be_binary() -> None:
    assert read(BODY, {**HEADERS, "x-trace": b"\xff\xfe", "__schema_id": b"\x00\x80"}).id == "1"


def test_unknown_extensions_are_passed_over() -> None:
    assert read(structured(tenantid="a", shard=7, sampled=True, nothing=None)).id == "1"


def test_data_base64_is_data_too() -> None:
    assert read(structured(data=..., data_base64=base64.b64encode(BODY).decode())).data == Document(text="hello")


def test_the_time_of_the_record_stands_in_for_a_missing_time() -> None:
    assert read(BODY, HEADERS).time == 1.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01T01:30:00+01:30", 0),
        ("1970-01-01T00:00:00-00:00", 0),
        ("1970-01-01T00:00:00.123456789Z", 0.123456),
    ],
)
def test_timestamps(text: str, seconds: float) -> None:
    event = read(BODY, {**HEADERS, "ce_time": text, "ce_expirytime": text})
    assert (event.time, event.expirytime) == (seconds, seconds)


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2024-01-01",
        "2024-01-01T00:00:00",
        "2024-01-01 00:00:00",
        "2024-W01-1T00:00:00Z",
        "20240101T000000Z",
        "2024-13-01T00:00:00Z",
        "2024-01-01T24:00:01Z",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
        "٢٠٢٤-01-01T00:00:00Z",
    ],
)
def test_times_that_are_none(text: str) -> None:
    assert refusal(BODY, {**HEADERS, "ce_time": text}).reason == "bad-attribute"
    assert refusal(BODY, {**HEADERS, "ce_expirytime": text}).reason == "bad-attribute"


def test_dataref_is_fetched_where_that_is_allowed() -> None:
    headers = {**HEADERS, "ce_dataref": "file:///somewhere"}
    assert refusal(b"", headers).reason == "dataref-refused"
    seen: list[str] = []

    def fetch(reference: str) -> bytes:
        seen.append(reference)
        return BODY

    assert read(b"", headers, fetch=fetch).data == Document(text="hello")
    assert read(None, headers, fetch=fetch).data == Document(text="hello")
    assert seen == ["file:///somewhere"] * 2
    assert refusal(None, headers, fetch=lambda _: b" " * (MAX_BYTES + 1)).reason == "too-large"


def test_data_that_is_there_wins_over_dataref() -> None:
    assert read(BODY, {**HEADERS, "ce_dataref": "file:///somewhere"}).data == Document(text="hello")


@pytest.mark.parametrize("missing", ["id", "source", "type", "specversion"])
def test_what_each_event_must_have(missing: str) -> None:
    without = {name: text for name, text in HEADERS.items() if name != "ce_" + missing}
    error = refusal(BODY, without)
    assert error.reason == "missing-attribute"
    assert missing in error.detail
    assert refusal(BODY, {**HEADERS, "ce_" + missing: ""}).reason == "missing-attribute"
    # Without specversion a JSON object is anything, not a CloudEvent.
    expected = "not-cloudevents" if missing == "specversion" else "missing-attribute"
    assert refusal(structured(**{missing: ...})).reason == expected
    assert refusal(structured(**{missing: 5})).reason == "bad-attribute"


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (None, {}, "empty"),
        (b"", {}, "empty"),
        (None, HEADERS, "empty"),
        (b"", HEADERS, "empty"),
        (structured(data=None), {}, "empty"),
        (b"x" * (MAX_BYTES + 1), HEADERS, "too-large"),
        (b"\xff\xfe", {}, "not-utf8"),
        (b"\xff\xfe", HEADERS, "not-utf8"),
        (BODY, {**HEADERS, "ce_id": b"\xff"}, "not-utf8"),
        (b"hello", {}, "not-json"),
        (b'{"text": "hello"', HEADERS, "not-json"),
        (b'{"text": "\\ud800"}', HEADERS, "not-json"),
        (b'{"text": NaN}', HEADERS, "not-json"),
        (b"[" * 5000, {}, "not-json"),
        (b"<text/>", {**HEADERS, "content-type": "application/xml"}, "not-json"),
        (BODY, {**HEADERS, "content-type": "application/cloudevents+avro"}, "not-json"),
        (b"5", {}, "not-cloudevents"),
        (BODY, {}, "not-cloudevents"),
        (structured(), {"content-type": "application/cloudevents-batch+json"}, "not-cloudevents"),
        (BODY, {**HEADERS, "ce_specversion": "0.3"}, "bad-attribute"),
        (structured(subject={"a": 1}), {}, "bad-attribute"),
        (structured(other=[1]), {}, "bad-attribute"),
        (structured(other=1.5), {}, "bad-attribute"),
        (structured(time=5), {}, "bad-attribute"),
        (BODY, {**HEADERS, "ce_type": "com.example.order"}, "unknown-type"),
        (b'{"text": ""}', HEADERS, "bad-data"),
        (b'{"text": 5}', HEADERS, "bad-data"),
        (b'{"text": "a", "colour": "red"}', HEADERS, "bad-data"),
        (b'"hello"', HEADERS, "bad-data"),
        (structured(data="hello"), {}, "bad-data"),
        (structured(data=..., data_base64="?"), {}, "bad-data"),
        (structured(data=..., data_base64=5), {}, "bad-data"),
        (structured(data={"text": "a"}, data_base64="e30="), {}, "bad-data"),
    ],
)
def test_refusals(value: bytes | None, headers: dict[str, str | bytes], reason: str) -> None:
    error = refusal(value, headers)
    assert error.reason == reason
    assert error.detail


def test_too_large_is_refused_without_keeping_the_bytes() -> None:
    assert refusal(b"x" * (MAX_BYTES + 1), HEADERS).data is None


def test_a_refusal_keeps_the_bytes_and_the_cause() -> None:
    error = refusal(b'{"text": 5}', HEADERS)
    assert error.data == b'{"text": 5}'
    assert error.__cause__ is not None
    assert "$.text" in error.detail


def test_both_encodings_say_the_same() -> None:
    event = read(BODY, {**HEADERS, "ce_time": "2024-05-06T07:08:09.5Z", "ce_expirytime": "2034-05-06T07:08:09Z"})
    for value, headers in (encode_event(event), encode_event_structured(event)):
        assert decode_event(value, headers, record_time=9, max_bytes=MAX_BYTES) == event


def test_rfc3339() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    assert rfc3339(1714979289.5) == "2024-05-06T07:08:09.500000Z"


def test_every_type_has_one_name() -> None:
    assert type_name(Fact(subject="a", relation="b", object="c")) == "lifelong.fact"
    assert len(set(EVENT_TYPES.values())) == len(EVENT_TYPES)


def test_messages_of_our_own_topics() -> None:
    request = Request(id="r", messages=(Message(role="user", content="?"),))
    assert decode(encode(request), Request) == request


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "empty"), (b"", "empty"), (b"\xff", "not-utf8"), (b"{", "not-json"), (b"{}", "bad-data")],
)
def test_refusals_of_our_own_topics(value: bytes | None, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(value, Request)
    assert caught.value.reason == reason
