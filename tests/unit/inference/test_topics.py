from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lifelong.contracts.codec import encode
from lifelong.contracts.events import Message
from lifelong.contracts.requests import Request
from lifelong.contracts.topics import DLQ_HEADER_REASON, REQUESTS, REQUESTS_DLQ
from lifelong.errors import UnreachableError
from lifelong.inference.handler import output_id
from lifelong.inference.topics import RequestTopic
from lifelong.runtime.clock import SystemClock
from lifelong.stream.base import Partition
from lifelong.stream.dead_letters import DeadLetters

GROUP = "lifelong.inference.test"


def request(identifier: str, **fields: Any) -> bytes:
    return encode(Request(id=identifier, messages=(Message("user", f"Question {identifier}?"),), **fields))


@pytest.fixture
def topic(server: Any) -> Callable[..., RequestTopic]:
    def make(**hooks: Any) -> RequestTopic:
        source = server.broker.group_source([REQUESTS.name], GROUP, **hooks)
        letters = DeadLetters(server.broker.sink(), "inference", server.metrics)
        clock = SystemClock()
        return RequestTopic(source, letters, server.answerer, server.outputs, server.metrics, clock, at_once=16)

    return make


def test_requests_are_answered_side_by_side_and_committed(server: Any, topic: Any) -> None:
    sink = server.broker.sink()
    for number in range(6):
        sink.send(REQUESTS.name, request(f"r{number}", max_tokens=8), partition=number % 2)
    assert topic().turn(threading.Event()) == 6
    outputs = server.published()
    assert sorted(output.request_id for output in outputs) == [f"r{number}" for number in range(6)]
    assert all(output.id == output_id(output.request_id, output.version) for output in outputs)
    assert server.broker.committed(GROUP, Partition(REQUESTS.name, 0)) == 3
    assert server.broker.committed(GROUP, Partition(REQUESTS.name, 1)) == 3


def test_a_crash_before_the_commit_answers_again_with_the_same_id(server: Any, topic: Any) -> None:
    server.broker.sink().send(REQUESTS.name, request("r1", max_tokens=8), partition=0)

    def crash(step: str) -> None:
        if step == "commit":
            raise UnreachableError("the broker is away")

    dying = topic(on=crash)
    with pytest.raises(UnreachableError):
        dying.turn(threading.Event())
    dying.close()
    topic().turn(threading.Event())
    first, second = server.published()
    assert first.id == second.id
    assert first.answer == second.answer


def test_what_cannot_be_answered_goes_to_the_dead_letters_and_the_asker_hears(server: Any, topic: Any) -> None:
    sink = server.broker.sink()
    too_long = Request(id="long", messages=(Message("user", "word " * 2000),))
    for value in (
        b"\xff\xfe",
        b'{"id": "r1", "messages": "no"}',
        request("r2", model="lifelong@77"),
        encode(too_long),
        None,
        request("good", max_tokens=4),
    ):
        sink.send(REQUESTS.name, value, partition=0)
    topic().turn(threading.Event())
    reasons = [dict(record.headers)[DLQ_HEADER_REASON].decode() for record in server.broker.records(REQUESTS_DLQ.name)]
    assert sorted(reasons) == ["bad-data", "empty", "not-utf8", "prompt-too-long", "unknown-model"]
    outcome = {output.request_id: output.finish_reason for output in server.published()}
    assert {key: outcome[key] for key in ("r1", "r2", "long")} == dict.fromkeys(("r1", "r2", "long"), "error")
    assert outcome["good"] in ("stop", "length")
    assert server.broker.committed(GROUP, Partition(REQUESTS.name, 0)) == 6


def test_a_request_is_strict(server: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"id": "x", "messages": [{"role": "user", "content": "a"}], "what": 1}', type=Request)
