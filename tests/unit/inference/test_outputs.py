from __future__ import annotations

import threading
from typing import Any

import pytest

from lifelong.contracts.requests import Output
from lifelong.errors import OverloadedError, UnreachableError
from lifelong.inference.outputs import Outputs
from lifelong.stream.memory import MemoryBroker


def output(number: int) -> Output:
    return Output(
        id=f"o{number}", request_id=f"r{number}", version="lifelong@1", base="tiny", messages=(), answer="yes",
        finish_reason="stop", created=1.0,
    )  # fmt: skip


class _Store:
    def put(self, outputs: list[Output]) -> None:
        pass


def test_answers_wait_for_a_broker_that_is_away_and_then_go_out(monkeypatch: Any) -> None:
    monkeypatch.setattr("lifelong.inference.outputs._RETRY_SECONDS", 0.01)
    away = threading.Event()
    away.set()

    def on(step: str) -> None:
        if away.is_set():
            raise UnreachableError("no broker")

    broker = MemoryBroker()
    outputs = Outputs(broker.sink(on), _Store(), max_waiting=2, required=True)  # type: ignore[arg-type]
    try:
        for number in range(4):
            outputs.put(output(number))
        # One batch is being tried; what stands behind it fills the room.
        while outputs.trouble is None:
            pass
        for number in range(4, 8):
            outputs.put(output(number))
        with pytest.raises(OverloadedError, match="no broker"):
            outputs.check_room()
        away.clear()
        outputs.flush()
        outputs.check_room()
        assert {record.key for record in broker.records("lifelong.outputs.v1")} == {
            f"r{number}".encode() for number in range(8)
        }
        assert outputs.trouble is None
    finally:
        outputs.close(5)
