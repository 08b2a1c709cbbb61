from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lifelong.contracts.codec import encode
from lifelong.contracts.events import Message
from lifelong.contracts.requests import Request
from lifelong.contracts.topics import DLQ_HEADER_REASON, OUTPUTS, REQUESTS, REQUESTS_DLQ
from lifelong.errors import OverloadedError, UnreachableError
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
    def make(*, at_once: int = 16, letters: Any = None, **hooks: Any) -> RequestTopic:
        source = server.broker.group_source([REQUESTS.name], GROUP, **hooks)
        letters = DeadLetters(letters or server.broker.sink(), "inference", server.metrics)
        return RequestTopic(
            source, letters, server.answerer, server.outputs, server.metrics, SystemClock(), at_once=at_once
        )

    return make


def settle(topic: RequestTopic) -> None:
    """Turn until all that was read is answered, out and committed."""
    topic.turn()
    deadline = time.monotonic() + 60
    while topic.num_open:
        assert time.monotonic() < deadline
        topic.turn()


def committed(server: Any) -> list[int | None]:
    return [server.broker.committed(GROUP, Partition(REQUESTS.name, number)) for number in (0, 1)]


def test_requests_are_answered_and_committed(server: Any, topic: Any) -> None:
    sink = server.broker.sink()
    for number in range(6):
        sink.send(REQUESTS.name, request(f"r{number}", max_tokens=8), partition=number % 2)
    settle(topic())
    outputs = server.published()
    assert sorted(output.request_id for output in outputs) == [f"r{number}" for number in range(6)]
    assert all(output.id == output_id(output.request_id, output.version) for output in outputs)
    assert committed(server) == [3, 3]


def test_a_short_request_does_not_wait_for_a_long_one(server: Any, topic: Any) -> None:
    sink = server.broker.sink()
    for number in range(2):
        sink.send(REQUESTS.name, request(f"long{number}", max_tokens=400), partition=0)
    running = topic(at_once=3)
    running.turn()
    for number in range(4):
        sink.send(REQUESTS.name, request(f"short{number}", max_tokens=2), partition=1)
    settle(running)
    order = [output.request_id for output in sorted(server.published(), key=lambda output: output.created)]
    # However slow the machine is beside, a long one takes longer than the first short ones.
    assert all(name.startswith("short") for name in order[:2])
    assert order[-1].startswith("long")
    assert sorted(order) == ["long0", "long1", *(f"short{number}" for number in range(4))]


def test_a_crash_before_the_commit_answers_again_with_the_same_id(server: Any, topic: Any) -> None:
    server.broker.sink().send(REQUESTS.name, request("r1", max_tokens=8), partition=0)

    def crash(step: str) -> None:
        if step == "commit":
            raise UnreachableError("the broker is away")

    dying = topic(on=crash)
    with pytest.raises(UnreachableError):
        settle(dying)
    dying.close()
    settle(topic())
    first, second = server.published()
    assert first.id == second.id
    assert first.answer == second.answer
    assert committed(server)[0] == 1


def test_nothing_is_committed_while_its_answer_is_not_out(server: Any, topic: Any, monkeypatch: Any) -> None:
    server.broker.sink().send(REQUESTS.name, request("r1", max_tokens=2), partition=0)
    monkeypatch.setattr(server.outputs, "is_out", lambda ticket: False)
    running = topic()
    running.turn()
    deadline = time.monotonic() + 60
    while not server.broker.records(OUTPUTS.name):
        assert time.monotonic() < deadline
        running.turn()
    running.turn()
    assert committed(server)[0] is None
    monkeypatch.undo()
    settle(running)
    assert committed(server)[0] == 1


def test_requests_wait_while_the_engine_is_full(server: Any, topic: Any, monkeypatch: Any) -> None:
    sink = server.broker.sink()
    for number in range(3):
        sink.send(REQUESTS.name, request(f"r{number}", max_tokens=2), partition=0)
    begin = server.answerer.begin
    refusals = iter([OverloadedError("full")] * 3)

    def sometimes_full(*args: Any) -> Any:
        for error in refusals:
            raise error
        return begin(*args)

    monkeypatch.setattr(server.answerer, "begin", sometimes_full)
    settle(topic())
    assert sorted(output.request_id for output in server.published()) == ["r0", "r1", "r2"]
    assert server.broker.records(REQUESTS_DLQ.name) == []


def test_another_member_takes_over_what_was_not_answered(server: Any, topic: Any, monkeypatch: Any) -> None:
    sink = server.broker.sink()
    for number in range(4):
        sink.send(REQUESTS.name, request(f"r{number}", max_tokens=4), partition=number % 2)
    begin = server.answerer.begin
    monkeypatch.setattr(server.answerer, "begin", lambda *_: (_ for _ in ()).throw(OverloadedError("full")))
    first = topic()
    first.turn()  # read, not begun
    second = topic()
    monkeypatch.setattr(server.answerer, "begin", begin)
    for _ in range(20):
        first.turn()
        second.turn()
    settle(first)
    settle(second)
    assert {output.request_id for output in server.published()} == {"r0", "r1", "r2", "r3"}
    assert committed(server) == [2, 2]


def test_told_to_stop_it_answers_what_has_begun_and_leaves_the_rest(server: Any, topic: Any, monkeypatch: Any) -> None:
    sink = server.broker.sink()
    for number in range(3):
        sink.send(REQUESTS.name, request(f"r{number}", max_tokens=30), partition=0)
    begin, stop, num_begun = server.answerer.begin, threading.Event(), 0

    def only_one(*args: Any) -> Any:
        nonlocal num_begun
        if num_begun == 1:
            stop.set()
            raise OverloadedError("full")
        num_begun += 1
        return begin(*args)

    monkeypatch.setattr(server.answerer, "begin", only_one)
    topic().run(stop, drain_seconds=60)
    assert [output.request_id for output in server.published()] == ["r0"]
    assert committed(server)[0] == 1


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
        sink.send(REQUESTS.name, value, key=b"key", partition=0)
    settle(topic())
    reasons = [dict(record.headers)[DLQ_HEADER_REASON].decode() for record in server.broker.records(REQUESTS_DLQ.name)]
    assert sorted(reasons) == ["bad-data", "empty", "not-utf8", "prompt-too-long", "unknown-model"]
    outcome = {output.request_id: output.finish_reason for output in server.published()}
    assert {key: outcome[key] for key in ("r1", "r2", "long")} == dict.fromkeys(("r1", "r2", "long"), "error")
    assert outcome["good"] in ("stop", "length")
    assert committed(server)[0] == 6


def test_what_a_chat_template_refuses_is_a_dead_letter(server: Any, topic: Any) -> None:
    server.base.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    server.broker.sink().send(REQUESTS.name, request("r1"), partition=0)
    settle(topic())
    (letter,) = server.broker.records(REQUESTS_DLQ.name)
    assert dict(letter.headers)[DLQ_HEADER_REASON] == b"bad-prompt"
    (output,) = server.published()
    assert "roles must alternate" in (output.error or "")


def test_a_dead_letter_that_does_not_get_through_is_sent_again(server: Any, topic: Any) -> None:
    server.broker.sink().send(REQUESTS.name, b"garbage", partition=0)
    away = [True]

    def on(step: str) -> None:
        if step == "flush" and away[0]:
            raise UnreachableError("the broker is away")

    running = topic(letters=server.broker.sink(on))
    with pytest.raises(UnreachableError):
        running.turn()
    assert committed(server)[0] is None
    away[0] = False
    settle(running)
    assert server.broker.records(REQUESTS_DLQ.name)
    assert committed(server)[0] == 1


def test_a_request_is_strict(server: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"id": "x", "messages": [{"role": "user", "content": "a"}], "what": 1}', type=Request)
