"""Ours against the official CloudEvents SDK: what theirs writes ours reads, what ours writes theirs reads.

Source: https://github.com/cloudevents/sdk-python
"""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings import kafka as sdk
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from tests.unit.contracts import strategies as a

from lifelong.contracts.codec import decode_event, encode_event, encode_event_structured
from lifelong.contracts.events import EVENT_TYPES, Event
from lifelong.errors import DecodeError

WRITE = {"binary": sdk.to_binary_event, "structured": sdk.to_structured_event}
READ = {"binary": sdk.from_binary_event, "structured": sdk.from_structured_event}
OURS = {"binary": encode_event, "structured": encode_event_structured}
both_modes = pytest.mark.parametrize("mode", ["binary", "structured"])


def to_theirs(event: Event, **attributes: str) -> CloudEvent:
    known = {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "specversion": "1.0",
        "datacontenttype": "application/json",
        "time": moment(event.time),
        "subject": event.subject,
        "partitionkey": event.partitionkey,
        "traceparent": event.traceparent,
        "expirytime": None if event.expirytime is None else moment(event.expirytime).isoformat(),
        **attributes,
    }
    return CloudEvent({name: value for name, value in known.items() if value is not None}, plain(event))


def moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def plain(event: Event) -> dict[str, Any]:
    data = msgspec.json.decode(msgspec.json.encode(event.data))
    assert isinstance(data, dict)
    return data


def from_message(message: sdk.KafkaMessage) -> Event:
    return decode_event(message.value, list(message.headers.items()), record_time=0, max_bytes=1_000_000)


@both_modes
@given(event=a.events())
def test_theirs_to_ours(mode: str, event: Event) -> None:
    assert from_message(WRITE[mode](to_theirs(event))) == event


@both_modes
@given(event=a.events())
def test_ours_to_theirs(mode: str, event: Event) -> None:
    value, headers = OURS[mode](event)
    message = sdk.KafkaMessage(headers=dict(headers), key=None, value=value)
    for theirs in (READ[mode](message), sdk.from_kafka_event(message)):
        assert theirs.get_id() == event.id
        assert theirs.get_source() == event.source
        assert theirs.get_type() == event.type
        assert theirs.get_specversion() == "1.0"
        assert theirs.get_subject() == event.subject
        assert theirs.get_datacontenttype() == "application/json"
        assert theirs.get_time() == moment(event.time)
        assert theirs.get_extension("partitionkey") == event.partitionkey
        assert theirs.get_extension("traceparent") == event.traceparent
        assert theirs.get_data() == plain(event)
        # And back through both: nothing was lost on the way.
        assert from_message(WRITE[mode](theirs)) == event


@both_modes
def test_their_bytes_as_data(mode: str) -> None:
    """In structured mode theirs sends bytes as ``data_base64``."""
    attributes = {"id": "1", "source": "/s", "type": "lifelong.fact", "specversion": "1.0"}
    body = b'{"subject":"a","relation":"b","object":"c"}'
    event = from_message(WRITE[mode](CloudEvent(attributes, body)))
    assert msgspec.json.encode(event.data) == body


@both_modes
def test_their_key_is_the_partition_key(mode: str) -> None:
    attributes = {"id": "1", "source": "/s", "type": "lifelong.forget", "specversion": "1.0", "partitionkey": "user-1"}
    message = WRITE[mode](CloudEvent(attributes, {"user": "user-1"}))
    assert message.key == "user-1"
    assert from_message(message).partitionkey == "user-1"


@both_modes
@pytest.mark.parametrize("type_name", sorted(EVENT_TYPES))
def test_data_that_is_not_of_the_type_is_refused_however_it_is_wrapped(mode: str, type_name: str) -> None:
    attributes = {"id": "1", "source": "/s", "type": type_name, "specversion": "1.0"}
    message = WRITE[mode](CloudEvent(attributes, {"colour": "red"}))
    with pytest.raises(DecodeError, match=r"^bad-data: "):
        from_message(message)
