"""The messages in ``messages/`` were written by some release and must be read by every later one.

Never change or remove one: add beside it. Below each topic there is a file per message: the value as it was written,
or, for events, headers and value together.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from lifelong.contracts import topics
from lifelong.contracts.codec import decode, decode_event, encode, encode_event, encode_event_structured
from lifelong.contracts.events import EVENT_TYPES
from lifelong.contracts.requests import Output, Request
from lifelong.contracts.samples import SampleRecord
from lifelong.contracts.versions import Manifest, VersionEvent

MESSAGES = Path(__file__).parent / "messages"
# The manifest is on no topic, and outlives every process all the same.
OWN: dict[str, type[msgspec.Struct]] = {
    topics.SAMPLES.name: SampleRecord,
    topics.VERSIONS.name: VersionEvent,
    topics.REQUESTS.name: Request,
    topics.OUTPUTS.name: Output,
    "manifests.v1": Manifest,
}
EVENTS = sorted((MESSAGES / topics.EVENTS.name).glob("*.json"))
OTHERS = sorted(path for folder in OWN for path in (MESSAGES / folder).glob("*.json"))


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_events(path: Path) -> None:
    kept = json.loads(path.read_text())
    headers = [(name, text.encode()) for name, text in kept["headers"].items()]
    value = kept["value"].encode()
    event = decode_event(value, headers, record_time=0, max_bytes=1_000_000)
    write = encode_event_structured if path.stem.startswith("structured-") else encode_event
    assert write(event) == (value, headers)


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_our_own_messages(path: Path) -> None:
    value = path.read_bytes().removesuffix(b"\n")
    assert encode(decode(value, OWN[path.parent.name])) == value


def test_there_is_one_of_each() -> None:
    assert {path.stem for path in EVENTS if "-" not in path.stem} == {name.split(".")[1] for name in EVENT_TYPES}
    assert {path.parent.name for path in OTHERS} == set(OWN)
    assert {folder.name for folder in MESSAGES.iterdir()} == {*OWN, topics.EVENTS.name}
