"""Bytes to typed objects and back, once, at the edge.

Events are CloudEvents 1.0 in the Kafka protocol binding: binary mode (attributes in ``ce_*`` headers, the value is
the data as JSON) and structured mode (the value is the whole event, ``content-type: application/cloudevents+json``).
Everything else on our topics is plain JSON of the structs in this package.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from lifelong.contracts.events import EVENT_TYPES, TYPE_OF_DATA, Event, EventData
from lifelong.errors import DecodeError

Headers = Sequence[tuple[str, bytes]]
Fetch = Callable[[str], bytes]
T = TypeVar("T")

_STRUCTURED = "application/cloudevents+json"
_REQUIRED = ("id", "source", "specversion", "type")
_STRINGS = frozenset({*_REQUIRED, "subject", "time", "partitionkey", "traceparent", "expirytime", "dataref"})
"""The attributes that are read here; all are strings in the specification. Others may be numbers or booleans."""
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def decode_event(
    value: bytes | None,
    headers: Headers,
    *,
    record_time: float,
    max_bytes: int,
    fetch: Fetch | None = None,
) -> Event:
    """The event in one Kafka record.

    Args:
        record_time: seconds since 1970, used where the event has no ``time``.
        max_bytes: an event with a larger value is refused.
        fetch: reads the data that a ``dataref`` points to, and raises ``DecodeError`` when it cannot; without it
            such an event is refused.

    Raises:
        DecodeError: with ``reason`` one of ``empty``, ``too-large``, ``not-utf8``, ``not-json``, ``not-cloudevents``,
            ``missing-attribute``, ``bad-attribute``, ``unknown-type``, ``bad-data``, ``dataref-refused``.
    """
    if value is not None and len(value) > max_bytes:
        # Not the data itself: an error must not carry megabytes around.
        raise DecodeError("too-large", f"{len(value)} bytes; at most {max_bytes} are accepted")
    texts = _header_texts(headers)
    content_type = texts.get("content-type", "").split(";")[0].strip().lower()
    if content_type.startswith("application/cloudevents-batch"):
        raise DecodeError("not-cloudevents", "batches are not part of the Kafka binding: one event per record", value)
    if content_type == _STRUCTURED or not any(name.startswith("ce_") for name in texts):
        attributes, data = _structured(value)
    else:
        attributes = {name[3:].lower(): text for name, text in texts.items() if name.startswith("ce_")}
        if content_type and not content_type.endswith(("/json", "+json")):
            raise DecodeError("not-json", f"content-type {content_type!r}: the data must be JSON", value)
        data = value
    return _event(attributes, data, value, record_time, max_bytes, fetch)


def _header_texts(headers: Headers) -> dict[str, str]:
    texts = {}
    for name, raw in headers:
        # Tracers and gateways put headers of their own on a record, and those may be binary.
        if name.lower() != "content-type" and not name.lower().startswith("ce_"):
            continue
        try:
            texts[name.lower()] = raw.decode() if raw is not None else ""
        except UnicodeDecodeError as error:
            raise DecodeError("not-utf8", f"header {name!r}: {error}") from error
    return texts


def _structured(value: bytes | None) -> tuple[dict[str, Any], bytes | None]:
    document = _json(value)
    if not isinstance(document, dict) or "specversion" not in document:
        raise DecodeError(
            "not-cloudevents",
            "neither ce_* headers nor a JSON object with specversion: publish CloudEvents 1.0",
            value,
        )
    # Producers that hold the JSON as bytes send it so; the SDKs do.
    encoded = document.pop("data_base64", None)
    data = document.pop("data", None)
    if encoded is not None and data is not None:
        raise DecodeError("bad-data", "both data and data_base64", value)
    if encoded is not None:
        try:
            return document, base64.b64decode(encoded, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise DecodeError("bad-data", f"data_base64: {error}", value) from error
    return document, None if data is None else msgspec.json.encode(data)


def _json(value: bytes | None) -> Any:
    if not value:
        raise DecodeError("empty", "the record has no value", value)
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise DecodeError("not-utf8", str(error), value) from error
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DecodeError("not-json", str(error), value) from error


def _event(
    attributes: dict[str, Any],
    data: bytes | None,
    value: bytes | None,
    record_time: float,
    max_bytes: int,
    fetch: Fetch | None,
) -> Event:
    for name, attribute in attributes.items():
        if attribute is not None and not isinstance(attribute, str if name in _STRINGS else str | int):
            raise DecodeError("bad-attribute", f"{name}: expected a string, got {type(attribute).__name__}", value)
    for name in _REQUIRED:
        if not attributes.get(name):
            raise DecodeError("missing-attribute", f"the CloudEvents attribute {name!r} is missing or empty", value)
    if attributes["specversion"] != "1.0":
        raise DecodeError("bad-attribute", f"specversion {attributes['specversion']!r}: expected '1.0'", value)
    type_name = attributes["type"]
    data_type = EVENT_TYPES.get(type_name)
    if data_type is None:
        raise DecodeError("unknown-type", f"{type_name!r}: known are {', '.join(EVENT_TYPES)}", value)
    time = _timestamp(attributes, "time", value)
    return Event(
        id=attributes["id"],
        source=attributes["source"],
        type=type_name,
        data=_data(data_type, _resolve(attributes, data, value, max_bytes, fetch), value),
        time=record_time if time is None else time,
        subject=_optional(attributes, "subject"),
        partitionkey=_optional(attributes, "partitionkey"),
        traceparent=_optional(attributes, "traceparent"),
        expirytime=_timestamp(attributes, "expirytime", value),
    )


def _resolve(
    attributes: dict[str, Any], data: bytes | None, value: bytes | None, max_bytes: int, fetch: Fetch | None
) -> bytes | None:
    reference = _optional(attributes, "dataref")
    if data or reference is None:
        return data
    if fetch is None:
        raise DecodeError("dataref-refused", f"{reference}: no place to fetch data from is allowed", value)
    fetched = fetch(reference)
    if len(fetched) > max_bytes:
        raise DecodeError("too-large", f"{reference}: {len(fetched)} bytes; at most {max_bytes} are accepted", value)
    return fetched


def _data(data_type: type[EventData], data: bytes | None, value: bytes | None) -> EventData:
    if not data:
        raise DecodeError("empty", "the event has no data", value)
    _json(data)
    try:
        return msgspec.json.decode(data, type=data_type)
    except (msgspec.ValidationError, RecursionError) as error:
        raise DecodeError("bad-data", str(error), value) from error


def _optional(attributes: dict[str, Any], name: str) -> str | None:
    attribute = attributes.get(name)
    assert attribute is None or isinstance(attribute, str)
    return attribute or None


def _timestamp(attributes: dict[str, Any], name: str, value: bytes | None) -> float | None:
    text = _optional(attributes, name)
    if text is None:
        return None
    try:
        if not _RFC3339.fullmatch(text.upper()):
            raise ValueError("expected YYYY-MM-DDThh:mm:ssZ or an offset instead of Z")
        seconds = datetime.datetime.fromisoformat(text.upper()).astimezone(datetime.UTC).timestamp()
        rfc3339(seconds)  # What is accepted here can be written again.
        return seconds
    except (ValueError, OverflowError) as error:
        raise DecodeError("bad-attribute", f"{name}={text!r} is no RFC 3339 timestamp: {error}", value) from error


def rfc3339(seconds: float) -> str:
    """Seconds since 1970 as the timestamp that CloudEvents wants."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def encode_event(event: Event) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Value and headers of the Kafka record, in binary mode."""
    headers = [("content-type", b"application/json")]
    headers += [("ce_" + name, text.encode()) for name, text in _attributes(event).items()]
    return msgspec.json.encode(event.data), headers


def encode_event_structured(event: Event) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Value and headers of the Kafka record, in structured mode."""
    document: dict[str, Any] = dict(_attributes(event))
    document["datacontenttype"] = "application/json"
    document["data"] = event.data
    return msgspec.json.encode(document), [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def _attributes(event: Event) -> dict[str, str]:
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "time": rfc3339(event.time),
    }
    for name in ("subject", "partitionkey", "traceparent"):
        text = getattr(event, name)
        if text is not None:
            attributes[name] = text
    if event.expirytime is not None:
        attributes["expirytime"] = rfc3339(event.expirytime)
    return attributes


def type_name(data: EventData) -> str:
    """The CloudEvents type of this data, for example ``lifelong.feedback``."""
    return TYPE_OF_DATA[type(data)]


def decode(value: bytes | None, to: type[T]) -> T:
    """A message of one of our own topics.

    Raises:
        DecodeError: with ``reason`` ``empty``, ``not-utf8``, ``not-json`` or ``bad-data``.
    """
    _json(value)
    assert value is not None
    try:
        return msgspec.json.decode(value, type=to)
    except msgspec.ValidationError as error:
        raise DecodeError("bad-data", str(error), value) from error


def encode(message: msgspec.Struct) -> bytes:
    """Canonical JSON: the same message always has the same bytes."""
    # In two steps, because the encoder sorts only dicts with string keys, and offsets are kept by partition number.
    return msgspec.json.encode(msgspec.to_builtins(message, str_keys=True, order="deterministic"))
