"""The topics as an AsyncAPI document: who sends what where, in a form that tools and people outside can read.

Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0, Kafka bindings 0.5.0
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lifelong.contracts import examples, json_schema, topics
from lifelong.contracts.codec import encode_event
from lifelong.contracts.events import EVENT_TYPES
from lifelong.contracts.topics import Topic

Json = dict[str, Any]

CONTRACT_VERSION = "1.0.0"
"""Of the contracts, not of the software. The first part is the ``vN`` in the topics' names."""

FLOW: tuple[tuple[str, Literal["send", "receive"], Topic], ...] = (
    ("application", "send", topics.EVENTS),
    ("application", "send", topics.REQUESTS),
    ("application", "receive", topics.OUTPUTS),
    ("collector", "receive", topics.EVENTS),
    ("collector", "send", topics.SAMPLES),
    ("collector", "send", topics.EVENTS_DLQ),
    ("trainer", "receive", topics.SAMPLES),
    ("trainer", "send", topics.VERSIONS),
    ("trainer", "send", topics.SAMPLES_DLQ),
    ("distiller", "receive", topics.SAMPLES),
    ("distiller", "receive", topics.VERSIONS),
    ("distiller", "send", topics.VERSIONS),
    ("distiller", "send", topics.SAMPLES_DLQ),
    ("inference", "receive", topics.REQUESTS),
    ("inference", "send", topics.OUTPUTS),
    ("inference", "send", topics.REQUESTS_DLQ),
)
"""Which process sends to and receives from which topic."""

_OWN: dict[str, msgspec.Struct] = {
    topics.SAMPLES.name: examples.SAMPLE_RECORD,
    topics.VERSIONS.name: examples.VERSION_EVENT,
    topics.REQUESTS.name: examples.REQUEST,
    topics.OUTPUTS.name: examples.OUTPUT,
}
_STRING: Json = {"type": "string"}
_TIME: Json = {"type": "string", "format": "date-time"}


def document() -> Json:
    messages = {**_event_messages(), **_own_messages(), "DeadLetter": _dead_letter()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "lifelong",
            "version": CONTRACT_VERSION,
            "description": (
                "Events go in, versions of the model and its answers come out. "
                "Topic names are those of an installation without `kafka.topic_prefix`."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "embedded": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "As `lifelong up` and `docker compose up` start it.",
            },
            "yours": {
                "host": "{bootstrap_servers}",
                "protocol": "kafka-secure",
                "description": "Any Apache Kafka ≥ 3.0; see the section `kafka` of the settings.",
                "variables": {"bootstrap_servers": {"description": "host:port", "default": "kafka.example.com:9093"}},
            },
        },
        "channels": {_channel_id(topic): _channel(topic) for topic in topics.TOPICS},
        "operations": {
            f"{who}.{action}.{_channel_id(topic)}": _operation(who, action, topic) for who, action, topic in FLOW
        },
        "components": {
            "messages": messages,
            "schemas": {**json_schema.components("#/components/schemas/{name}"), **_envelope_schemas()},
        },
    }


def _channel_id(topic: Topic) -> str:
    """``lifelong.events.v1`` → ``events``, its dead letters → ``events-dlq``."""
    _, name, *rest = topic.name.split(".")
    return "-".join([name, *(part for part in rest if part == "dlq")])


def _channel(topic: Topic) -> Json:
    settings = topic.config()
    configuration: Json = {
        "cleanup.policy": [settings["cleanup.policy"]],
        "max.message.bytes": int(settings["max.message.bytes"]),
    }
    if "retention.ms" in settings:
        configuration["retention.ms"] = int(settings["retention.ms"])
    return {
        "address": topic.name,
        "description": f"{topic.about} Key: {topic.key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _message_names(topic)},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions or topics.DEFAULT_PARTITIONS,
                "topicConfiguration": configuration,
                "bindingVersion": "0.5.0",
            }
        },
    }


def _message_names(topic: Topic) -> list[str]:
    if topic is topics.EVENTS:
        return [*(data.__name__ for data in EVENT_TYPES.values()), "StructuredEvent"]
    if topic.name.endswith(".dlq"):
        return ["DeadLetter"]
    return [type(_OWN[topic.name]).__name__]


def _operation(who: str, action: str, topic: Topic) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{_channel_id(topic)}"},
        "summary": f"The {who} {'writes' if action == 'send' else 'reads'} {_channel_id(topic)}.",
        "tags": [{"name": who}],
    }


def _event_messages() -> dict[str, Json]:
    messages: dict[str, Json] = {}
    for data in examples.EVENT_DATA:
        event = examples.event(data)
        name = type(data).__name__
        about = type(data).__doc__ or ""
        headers = {header: raw.decode() for header, raw in encode_event(event)[1]}
        messages[name] = {
            "name": event.type,
            "title": f"{name}, CloudEvents binary mode",
            "summary": about.splitlines()[0],
            "contentType": "application/json",
            "headers": {
                "allOf": [
                    {"$ref": "#/components/schemas/CloudEventHeaders"},
                    {"type": "object", "properties": {"ce_type": {"const": event.type}}},
                ]
            },
            "payload": {"$ref": f"#/components/schemas/{name}"},
            "bindings": _key(topics.EVENTS),
            "examples": [{"name": name, "headers": headers, "payload": msgspec.to_builtins(data, str_keys=True)}],
        }
    messages["StructuredEvent"] = {
        "name": "structured",
        "title": "Any event, CloudEvents structured mode",
        "contentType": "application/cloudevents+json",
        "payload": {"$ref": "#/components/schemas/StructuredEvent"},
        "bindings": _key(topics.EVENTS),
    }
    return messages


def _own_messages() -> dict[str, Json]:
    by_name = {topic.name: topic for topic in topics.TOPICS}
    return {
        type(example).__name__: {
            "name": type(example).__name__,
            "summary": (type(example).__doc__ or "").strip().splitlines()[0].replace("``", "`"),
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{type(example).__name__}"},
            "bindings": _key(by_name[topic]),
            "examples": [{"payload": msgspec.to_builtins(example, str_keys=True)}],
        }
        for topic, example in _OWN.items()
    }


def _dead_letter() -> Json:
    headers = {
        topics.DLQ_HEADER_TOPIC: "where the record came from",
        topics.DLQ_HEADER_PARTITION: "its partition there",
        topics.DLQ_HEADER_OFFSET: "its offset there",
        topics.DLQ_HEADER_REASON: "a short, stable word",
        topics.DLQ_HEADER_DETAIL: "the reason for people",
        topics.DLQ_HEADER_PROCESS: "who refused it",
    }
    return {
        "name": "DeadLetter",
        "summary": "A record that was refused, as it came, with the reason and the origin in further headers.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "properties": {name: {**_STRING, "description": about} for name, about in headers.items()},
            "required": list(headers),
        },
        "payload": {"description": "The value of the record as it came: any bytes, or none."},
    }


def _key(topic: Topic) -> Json:
    return {"kafka": {"key": {**_STRING, "description": topic.key}, "bindingVersion": "0.5.0"}}


def _envelope_schemas() -> dict[str, Json]:
    attributes: dict[str, Json] = {
        "specversion": {"const": "1.0"},
        "id": {**_STRING, "minLength": 1},
        "source": {**_STRING, "minLength": 1},
        "type": {"enum": list(EVENT_TYPES)},
        "time": {**_TIME, "description": "When it happened. Without it: the time of the Kafka record."},
        "subject": _STRING,
        "partitionkey": {**_STRING, "description": "The ordering unit, as in the record's key."},
        "traceparent": {**_STRING, "description": "W3C trace context."},
        "expirytime": {**_TIME, "description": "Later than this it is not worth learning."},
        "dataref": {**_STRING, "description": "Where the data is, if not here; only where the collector allows it."},
    }
    required = ["specversion", "id", "source", "type"]
    of_each_type = [
        {"properties": {"type": {"const": name}, "data": {"$ref": f"#/components/schemas/{data.__name__}"}}}
        for name, data in EVENT_TYPES.items()
    ]
    return {
        "CloudEventHeaders": {
            "type": "object",
            "description": "CloudEvents 1.0 attributes as Kafka headers, UTF-8.",
            "properties": {
                "content-type": {**_STRING, "description": "JSON by one of its names, or nothing."},
                **{"ce_" + name: schema for name, schema in attributes.items()},
            },
            "required": ["ce_" + name for name in required],
        },
        "StructuredEvent": {
            "type": "object",
            "description": "CloudEvents 1.0 in the JSON format. The data must be that of the type.",
            "properties": {**attributes, "datacontenttype": _STRING, "data": {}, "data_base64": _STRING},
            "required": required,
            "oneOf": of_each_type,
        },
    }
