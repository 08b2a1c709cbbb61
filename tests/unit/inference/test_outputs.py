from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from lifelong.contracts.requests import Output
from lifelong.errors import UnreachableError
from lifelong.inference.outputs import Outputs
from lifelong.stream.memory import MemoryBroker


def output(number: int) -> Output:
    return Output(
        id=f"o{number}", request_id=f"r{number}", version="lifelong@1", base="tiny", messages=(), answer="yes",
        finish_reason="stop", created=1.0,
    )  # fmt: skip


class Switch:
    """A server that can be away; ``tried`` is set once it was asked while away."""

    def __init__(self) -> None:
        self.away = False
        self.tried = threading.Event()

    def check(self, step: str = "") -> None:
        if self.away:
            self.tried.set()
            raise UnreachableError("it is away")


class Store(Switch):
    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Output] = {}

    def put(self, outputs: Sequence[Output]) -> None:
        self.check()
        self.kept |= {one.id: one for one in outputs}

    def get(self, output_id: str) -> Output | None:
        self.check()
        return self.kept.get(output_id)


class Desk:
    def __init__(self, **options: Any) -> None:
        self.kafka, self.redis = Switch(), Store()
        self.broker = MemoryBroker(default_partitions=1)
        options = {"max_waiting": 2, "required": True, "retry_seconds": 0.01, **options}
        self.outputs = Outputs(self.broker.sink(self.kafka.check), self.redis, **options)

    def published(self) -> list[str]:
        return [(record.key or b"").decode() for record in self.broker.records("lifelong.outputs.v1")]


@pytest.fixture
def desk() -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(**options: Any) -> Desk:
        made.append(Desk(**options))
        return made[-1]

    yield make
    for one in made:
        one.kafka.away = one.redis.away = False
        one.outputs.close(10)


def test_answers_wait_for_a_broker_that_is_away_and_then_go_out_in_order(desk: Callable[..., Desk]) -> None:
    at = desk()
    at.kafka.away = True
    tickets = [at.outputs.put(output(number)) for number in range(4)]
    assert at.kafka.tried.wait(10)
    assert not at.outputs.is_out(tickets[0])
    assert not at.outputs.flush(0.05)
    with pytest.raises(UnreachableError, match="it is away"):
        at.outputs.check_room()
    assert "4 answers wait" in (at.outputs.trouble or "")

    at.kafka.away = False
    assert at.outputs.flush(10)
    assert all(at.outputs.is_out(ticket) for ticket in tickets)
    at.outputs.check_room()
    assert at.published() == ["r0", "r1", "r2", "r3"]
    assert at.outputs.trouble is None


def test_flush_waits_only_for_what_was_there_before(desk: Callable[..., Desk]) -> None:
    """Or it would never end on a busy server."""
    at = desk(max_waiting=10_000)
    stop = threading.Event()

    def keep_busy() -> None:
        number = 0
        while not stop.is_set():
            at.outputs.put(output(number))
            number += 1

    busy = threading.Thread(target=keep_busy)
    busy.start()
    try:
        assert at.outputs.flush(30)
    finally:
        stop.set()
        busy.join()


def test_without_redis_answers_go_out_once_and_can_be_found(desk: Callable[..., Desk]) -> None:
    at = desk(max_waiting=10)
    at.redis.away = True
    ticket = at.outputs.put(output(1))
    assert at.redis.tried.wait(10)
    at.redis.tried.clear()
    assert at.redis.tried.wait(10), "it is tried again, without another answer"
    assert at.outputs.is_out(ticket)
    assert at.published() == ["r1"]
    assert "feedback" in (at.outputs.trouble or "")
    assert at.outputs.find("o1") == output(1)

    at.redis.away = False
    assert at.outputs.flush(10)
    assert at.redis.kept == {"o1": output(1)}
    assert at.published() == ["r1"]


def test_what_waits_for_redis_is_bounded_and_what_is_given_up_is_said(desk: Callable[..., Desk]) -> None:
    at = desk(max_waiting=2)
    at.redis.away = True
    for number in range(5):
        at.outputs.put(output(number))
    while "3 answers cannot be named" not in (at.outputs.trouble or ""):
        at.redis.tried.wait(0.01)
    at.redis.away = False
    assert at.outputs.flush(10)
    assert set(at.redis.kept) == {"o3", "o4"}
    assert len(at.published()) == 5
    assert at.outputs.find("o0") is None


def test_an_answer_can_be_found_before_it_is_out(desk: Callable[..., Desk]) -> None:
    at = desk()
    at.kafka.away = True
    at.outputs.put(output(7))
    assert at.outputs.find("o7") == output(7)
    assert at.outputs.find("o8") is None


def test_where_outputs_are_not_required_they_are_dropped_and_counted(desk: Callable[..., Desk]) -> None:
    at = desk(required=False)
    at.kafka.away = True
    for number in range(5):
        at.outputs.put(output(number))
        at.outputs.check_room()
    assert "3 answers were not published" in (at.outputs.trouble or "")
    at.kafka.away = False
    assert at.outputs.flush(10)
    assert at.published() == ["r0", "r1"]


def test_closing_publishes_what_waits(desk: Callable[..., Desk]) -> None:
    at = desk(max_waiting=1000)
    for number in range(500):
        at.outputs.put(output(number))
    at.outputs.close(30)
    assert len(at.published()) == 500
    assert len(at.redis.kept) == 500


def test_closing_does_not_wait_for_ever_and_says_what_is_lost(
    desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    at = desk()
    at.kafka.away = True
    at.outputs.put(output(1))
    assert at.kafka.tried.wait(10)
    at.outputs.close(30)
    assert "1 answers could not be published" in caplog.text


def test_a_mistake_of_ours_does_not_end_publishing(desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture) -> None:
    at = desk()
    mistakes = [KeyError("a mistake")]

    def check(step: str) -> None:
        if mistakes:
            raise mistakes.pop()

    outputs = Outputs(at.broker.sink(check), at.redis, max_waiting=2, required=True, retry_seconds=0.01)
    outputs.put(output(1))
    assert outputs.flush(10)
    outputs.close(10)
    assert at.published() == ["r1"]
    assert "a mistake" in caplog.text
