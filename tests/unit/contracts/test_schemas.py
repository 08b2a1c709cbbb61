"""What is generated from the contracts: fresh, valid, and saying the same as the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from tests.unit.contracts import strategies as a

from lifelong.contracts import examples, json_schema, schemas, topics
from lifelong.contracts.asyncapi import FLOW, document
from lifelong.contracts.codec import decode, encode, encode_event_structured
from lifelong.contracts.events import EVENT_TYPES, Event, EventData
from lifelong.contracts.metrics import METRICS
from lifelong.contracts.versions import Manifest

STANDALONE = json_schema.standalone()
EXAMPLES: tuple[msgspec.Struct, ...] = (
    *examples.EVENT_DATA,
    examples.SAMPLE_RECORD,
    examples.VERSION_EVENT,
    examples.MANIFEST,
    examples.REQUEST,
    examples.OUTPUT,
)


def checker(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(STANDALONE[f"{name}.json"])


CHECKERS = {data.__name__: checker(data.__name__) for data in EVENT_TYPES.values()}


def as_json(message: msgspec.Struct) -> Any:
    return msgspec.json.decode(msgspec.json.encode(message))


def test_the_docs_are_fresh() -> None:
    assert schemas.stale(schemas.DOCS) == [], "run `make generate`"


def test_writing_mends_what_is_stale(tmp_path: Path) -> None:
    schemas.write(tmp_path)
    assert schemas.stale(tmp_path) == []
    (tmp_path / "metrics.md").write_text("old")
    (tmp_path / "schemas" / "Gone.json").write_text("{}")
    (tmp_path / "schemas" / "Fact.json").unlink()
    assert schemas.stale(tmp_path) == ["metrics.md", "schemas/Fact.json", "schemas/Gone.json"]
    schemas.write(tmp_path)
    assert schemas.stale(tmp_path) == []


def test_check_fails_when_stale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(schemas, "DOCS", tmp_path)
    with pytest.raises(SystemExit, match=r"stale: .*asyncapi\.yaml.*make generate"):
        schemas.main(["check"])
    schemas.main(["write"])
    schemas.main(["check"])
    with pytest.raises(SystemExit, match="usage"):
        schemas.main([])


def test_every_message_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == set(json_schema.MESSAGES)
    assert {type(data) for data in examples.EVENT_DATA} == set(EVENT_TYPES.values())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_examples_are_valid(example: msgspec.Struct) -> None:
    name = type(example).__name__
    jsonschema.Draft202012Validator.check_schema(STANDALONE[f"{name}.json"])
    checker(name).validate(as_json(example))


@given(a.data)
def test_what_the_code_accepts_the_schema_accepts(data: EventData) -> None:
    CHECKERS[type(data).__name__].validate(as_json(data))


@pytest.mark.parametrize("example", examples.EVENT_DATA, ids=lambda example: type(example).__name__)
def test_what_the_schema_refuses_the_code_refuses(example: EventData) -> None:
    """And the other way round: each field in turn is left out, made empty, or of another type."""
    validator = CHECKERS[type(example).__name__]
    plain = as_json(example)
    changed = [plain, {**plain, "colour": "red"}]
    for field in plain:
        changed.append({name: value for name, value in plain.items() if name != field})
        changed += [{**plain, field: other} for other in ("", None, 7, [], {"a": 1}, [""])]
    verdicts = set()
    for document_ in changed:
        try:
            msgspec.convert(document_, type(example))
            accepted = True
        except msgspec.ValidationError:
            accepted = False
        assert validator.is_valid(document_) == accepted, document_
        verdicts.add(accepted)
    assert verdicts == {True, False}


def test_fields_are_explained() -> None:
    schema = STANDALONE["Feedback.json"]
    assert schema["properties"]["rating"]["description"] == "-1: useless, 1: perfect."
    assert schema["description"].startswith("What somebody thought")


@given(a.events())
def test_the_structured_envelope(event: Event) -> None:
    value, _ = encode_event_structured(event)
    ENVELOPE.validate(msgspec.json.decode(value))


def _envelope() -> jsonschema.Draft202012Validator:
    components = document()["components"]
    return jsonschema.Draft202012Validator({"$ref": "#/components/schemas/StructuredEvent", "components": components})


ENVELOPE = _envelope()


def test_every_topic_has_a_writer_and_a_reader() -> None:
    writers = {topic.name for _, action, topic in FLOW if action == "send"}
    readers = {topic.name for _, action, topic in FLOW if action == "receive"}
    names = {topic.name for topic in topics.TOPICS}
    assert writers == names
    # Dead letters are for people.
    assert readers == {name for name in names if not name.endswith(".dlq")}


def test_the_document_names_every_topic_and_its_settings() -> None:
    channels = document()["channels"]
    assert {channel["address"] for channel in channels.values()} == {topic.name for topic in topics.TOPICS}
    assert channels["versions"]["bindings"]["kafka"]["partitions"] == 1
    assert channels["versions"]["bindings"]["kafka"]["topicConfiguration"]["cleanup.policy"] == ["compact"]


def test_the_page_of_metrics_has_them_all() -> None:
    page = schemas.files()["metrics.md"]
    assert all(page.count(f"| `{metric.name}` |") == 1 for metric in METRICS)


def test_encoding_is_canonical() -> None:
    one = msgspec.structs.replace(examples.MANIFEST, watermarks={1: 1, 0: 0}, settings={"b": "", "a": ""})
    other = msgspec.structs.replace(examples.MANIFEST, watermarks={0: 0, 1: 1}, settings={"a": "", "b": ""})
    assert encode(one) == encode(other)
    assert decode(encode(one), Manifest) == one
