"""What holds for every event and for every heap of bytes."""

from __future__ import annotations

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.contracts import strategies as a

from lifelong.contracts.codec import decode_event, encode_event, encode_event_structured, rfc3339
from lifelong.contracts.events import Event
from lifelong.errors import DecodeError

REASONS = {
    *("empty", "too-large", "not-utf8", "not-json", "not-cloudevents"),
    *("an event", "missing-attribute", "bad-attribute", "unknown-type", "bad-data", "dataref-refused"),
}


def read(value: bytes | None, headers: list[tuple[str, bytes]]) -> Event:
    return decode_event(value, headers, record_time=0, max_bytes=1_000_000)


def outcome(value: bytes | None, headers: list[tuple[str, bytes]]) -> str:
    try:
        read(value, headers)
    except DecodeError as error:
        return error.reason
    return "an event"


@given(a.events())
def test_what_is_written_is_read_again(event: Event) -> None:
    for encoded in (encode_event(event), encode_event_structured(event)):
        assert read(*encoded) == event


@given(a.events())
def test_writing_again_gives_the_same_bytes(event: Event) -> None:
    for write in (encode_event, encode_event_structured):
        assert write(read(*write(event))) == write(event)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | a.text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(a.text, inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["ce_id", "ce_source", "ce_type", "ce_specversion", "ce_time", "ce_dataref", "content-type", "other"]
)
plausible = st.sampled_from([b"1.0", b"lifelong.fact", b"application/json", b"application/cloudevents+json", b""])


@given(
    st.none() | st.binary(max_size=60) | json_values.map(msgspec.json.encode),
    st.lists(st.tuples(names, st.binary(max_size=20) | plausible), max_size=6),
)
def test_nothing_but_an_event_or_a_refusal_comes_out(value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
    assert outcome(value, headers) in REASONS


@given(
    st.dictionaries(
        st.sampled_from(["specversion", "id", "source", "type", "time", "subject", "data", "data_base64", "x"]),
        json_values | st.sampled_from(["1.0", "lifelong.fact", "2024-01-01T00:00:00Z"]),
    )
)
def test_nor_of_structured_documents(document: dict[str, object]) -> None:
    assert outcome(msgspec.json.encode(document), []) in REASONS


@given(a.seconds)
def test_rfc3339_keeps_microseconds(seconds: float) -> None:
    event = msgspec.structs.replace(
        read(b'{"subject":"a","relation":"b","object":"c"}', _fact_headers(rfc3339(seconds))), id="x"
    )
    assert math.isclose(event.time, seconds, rel_tol=0, abs_tol=1e-6)


def _fact_headers(time: str) -> list[tuple[str, bytes]]:
    headers = {"specversion": "1.0", "id": "1", "source": "/t", "type": "lifelong.fact", "time": time}
    return [("ce_" + name, text.encode()) for name, text in headers.items()]
