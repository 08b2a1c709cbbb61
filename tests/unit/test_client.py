from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest

from lifelong import client as module
from lifelong.client import Answer, Client
from lifelong.contracts.codec import decode_event, encode
from lifelong.contracts.events import Document, Fact, Feedback, Interaction, Message, Observation
from lifelong.contracts.requests import Output
from lifelong.errors import OverloadedError, RequestError, UnreachableError
from lifelong.runtime.clock import ManualClock
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
    assert asked[0]["model"] is None, "the server knows its line"
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


@pytest.mark.parametrize(
    "opinion", [{}, {"rating": 0.5}, {"correction": ""}, {"correction": "In the car.", "rating": 1.5}]
)
def test_feedback_must_say_something(connect: Any, broker: MemoryBroker, opinion: Any) -> None:
    with connect() as client, pytest.raises(ValueError, match=r"correction|rating"):
        client.feedback("Where is the key?", **opinion)
    assert published(broker) == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Document(text=""), "length >= 1 - at `$.text`"),
        (Observation(task=""), "length >= 1 - at `$.task`"),
        (Document(text="\ud800"), "surrogates not allowed"),
        (msgspec.structs.replace(Document(text="x"), text=5), "Expected `str`, got `int` - at `$.text`"),
        ("only text", "is no event"),
    ],
)
def test_what_nobody_could_read_is_not_published(connect: Any, broker: MemoryBroker, bad: Any, reason: str) -> None:
    with connect() as client, pytest.raises(ValueError, match=re.escape(reason)):
        client.publish(Document(text="good"), bad)
    assert published(broker) == []


def test_times_travel_with_the_event(connect: Any, broker: MemoryBroker) -> None:
    with connect() as client:
        client.publish(Document(text="x"), event_time=1.5, expires=2.5, subject="about")
    (event,) = published(broker)
    assert (event.time, event.expirytime, event.subject) == (1.5, 2.5, "about")


def test_threads_share_one_connection(connect: Any, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    made = []

    def make(settings: Any) -> Any:
        made.append(settings)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)  # for the other thread to come here too, if it can
        return broker.sink()

    monkeypatch.setattr(module, "KafkaSink", make)
    with connect() as client:
        threads = [threading.Thread(target=client.publish, args=(Document(text=str(n)),)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(made) == 1
    assert {event.data.text for event in published(broker)} == {"0", "1"}


def test_refusals_are_errors_with_the_servers_words(connect: Any) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            404, json={"error": {"message": "no model 'x'", "type": "t", "param": None, "code": None}}
        )

    with connect(handle) as client, pytest.raises(RequestError, match="no model 'x'") as caught:
        client.ask("?", model="x")
    assert caught.value.status == 404
    assert not caught.value.retriable


def test_a_server_that_is_not_ready_may_be_asked_again(connect: Any) -> None:
    with connect(lambda _: httpx.Response(503, text="")) as client, pytest.raises(RequestError) as caught:
        client.ask("?")
    assert str(caught.value) == "HTTP 503: Service Unavailable"
    assert caught.value.retriable


@pytest.mark.parametrize("body", ["<html>", "[]", '{"choices": []}', '{"choices": [{"message": {"content": "x"}}]}'])
def test_another_server_is_recognised(connect: Any, body: str) -> None:
    with connect(lambda _: httpx.Response(200, text=body)) as client, pytest.raises(RequestError, match="no inference"):
        client.ask("?")


def test_health_is_told_also_when_it_is_bad(connect: Any) -> None:
    with connect(lambda _: httpx.Response(503, json={"status": "failing"})) as client:
        assert client.health() == {"status": "failing"}


def test_a_server_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        # A proxy that would answer, if it was asked about this machine.
        monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
        with Client(http=url) as client, pytest.raises(UnreachableError, match=r"127\.0\.0\.1.*refused") as caught:
            client.ask("?")
    assert caught.value.retriable


def test_an_overloaded_server_may_be_asked_again(connect: Any) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, text="busy")

    with connect(handle) as client, pytest.raises(OverloadedError, match="busy") as caught:
        client.ask("?")
    assert caught.value.retriable


def output(number: int) -> bytes:
    return encode(
        Output(
            id=f"o{number}",
            request_id=f"r{number}",
            version="lifelong@1",
            base="tiny",
            messages=(),
            answer=str(number),
            finish_reason="stop",
            created=1.0,
        )
    )


@pytest.fixture
def clock(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """Outputs come from memory, and every look at the clock takes 0.1 s."""
    clock = ManualClock()

    def look() -> float:
        clock.advance(0.1)
        return clock.monotonic()

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=look))
    monkeypatch.setattr(module, "KafkaSource", lambda settings, topics: broker.source(topics))
    return clock


def put(broker: MemoryBroker, number: int) -> None:
    broker.append("lifelong.outputs.v1", output(number), b"k", None, (), None)


def test_outputs_are_those_given_from_the_call_on(clock: ManualClock, broker: MemoryBroker) -> None:
    with Client() as client:
        put(broker, 1)
        now = client.outputs(idle_seconds=1)
        everything = client.outputs(from_beginning=True, idle_seconds=1)
        put(broker, 2)
        assert [o.answer for o in now] == ["2"]
        assert [o.answer for o in everything] == ["1", "2"]


def test_the_time_that_the_reader_takes_is_not_idle(clock: ManualClock, broker: MemoryBroker) -> None:
    seen = []
    with Client() as client:
        put(broker, 0)
        for one in client.outputs(from_beginning=True, idle_seconds=1):
            seen.append(one.answer)
            clock.advance(60)
            if len(seen) < 3:
                put(broker, len(seen))
    assert seen == ["0", "1", "2"]
