from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from lifelong import client as module
from lifelong.client import Answer, Client, RequestError
from lifelong.contracts.codec import decode_event
from lifelong.contracts.events import Document, Fact, Feedback, Interaction, Message, Observation
from lifelong.errors import OverloadedError
from lifelong.stream.memory import MemoryBroker

REPLY = {
    "choices": [{"message": {"content": "Under the mat."}}],
    "lifelong": {
        "output_id": "o1",
        "version": "lifelong@3",
        "memories": [{"id": "0-1-0", "event_id": "e1", "score": 0.9}],
        "newest_event_time": 5.0,
    },
}


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(default_partitions=4)


@pytest.fixture
def connect(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client whose Kafka is in memory and whose server is ``handle``."""
    monkeypatch.setattr(module, "KafkaSink", lambda settings: broker.sink())

    def make(handle: Any = None) -> Client:
        client = Client(source="test")
        client._http.close()
        client._http = httpx.Client(base_url="http://test", transport=httpx.MockTransport(handle or _answer))
        return client

    return make


def _answer(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=REPLY)


def published(broker: MemoryBroker) -> list[Any]:
    records = broker.records("lifelong.events.v1")
    return [decode_event(r.value, r.headers, record_time=r.time, max_bytes=100_000) for r in records]


def test_events_are_published_in_order_with_ids_of_their_own(connect: Any, broker: MemoryBroker) -> None:
    with connect() as client:
        ids = client.publish(*(Document(text=f"text {number}") for number in range(5)), key="k", event_time=9.0)
    events = published(broker)
    assert [event.id for event in events] == ids
    assert [event.data.text for event in events] == [f"text {number}" for number in range(5)]
    assert {event.time for event in events} == {9.0}
    assert {event.source for event in events} == {"test"}
    assert len({record.partition for record in broker.records("lifelong.events.v1")}) == 1


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (Fact(subject="house", relation="key", object="mat"), b"house"),
        (Observation(task="colour", input="x"), b"colour"),
        (Interaction(user="ann", item="film"), b"ann"),
        (Document(text="x", user="ann"), b"ann"),
        (Document(text="x"), None),
    ],
)
def test_what_belongs_together_has_one_key(connect: Any, broker: MemoryBroker, data: Any, key: Any) -> None:
    with connect() as client:
        client.publish(data)
    assert [record.key for record in broker.records("lifelong.events.v1")] == [key]


def test_an_answer_can_be_corrected(connect: Any, broker: MemoryBroker) -> None:
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return _answer(request)

    with connect(handle) as client:
        answer = client.ask("Where is the key?", user="ann", memory=False, max_tokens=7)
        client.feedback(answer, correction="In the car.", rating=-0.5)
    assert asked[0]["messages"] == [{"role": "user", "content": "Where is the key?"}]
    assert (asked[0]["max_tokens"], asked[0]["memory"], asked[0]["user"]) == (7, False, "ann")
    assert isinstance(answer, Answer)
    assert (answer.text, answer.version) == ("Under the mat.", "lifelong@3")
    assert answer.memories[0].event_id == "e1"
    (event,) = published(broker)
    assert event.data == Feedback(
        messages=(Message("user", "Where is the key?"),), answer="Under the mat.", correction="In the car.",
        rating=-0.5, output_id="o1", user="ann",
    )  # fmt: skip


def test_feedback_must_say_something(connect: Any) -> None:
    with connect() as client, pytest.raises(ValueError, match="correction"):
        client.feedback("Where is the key?")


def test_refusals_are_errors_with_the_servers_words(connect: Any) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            404, json={"error": {"message": "no model 'x'", "type": "t", "param": None, "code": None}}
        )

    with connect(handle) as client, pytest.raises(RequestError, match="no model 'x'") as caught:
        client.ask("?", model="x")
    assert caught.value.status == 404


def test_an_overloaded_server_may_be_asked_again(connect: Any) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, text="busy")

    with connect(handle) as client, pytest.raises(OverloadedError, match="busy") as caught:
        client.ask("?")
    assert caught.value.retriable
