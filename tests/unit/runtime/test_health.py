"""The port that a process answers on beside its work."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from lifelong.config.shared import MetricsSettings
from lifelong.runtime.health import Health, HealthServer
from lifelong.runtime.metrics import Metrics


@contextmanager
def serving(details: Callable[[], dict[str, object]]) -> Iterator[int]:
    server = HealthServer(MetricsSettings(), Metrics("trainer"), Health("trainer", details))
    try:
        yield server.port
    finally:
        server.close()


def test_who_is_gone_before_the_answer_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    is_asked, is_gone = threading.Event(), threading.Event()

    def details() -> dict[str, object]:
        is_asked.set()
        assert is_gone.wait(10)
        return {"much": "x" * 10_000_000}

    with serving(details) as port:
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert is_asked.wait(10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        is_gone.set()
        deadline = time.monotonic() + 10
        while not (told := _told(caplog)) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [record.levelno for record in told] == [logging.DEBUG]


def test_an_error_of_ours_is_one(caplog: pytest.LogCaptureFixture) -> None:
    def details() -> dict[str, object]:
        raise ValueError("a mistake")

    with serving(details) as port, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://127.0.0.1:{port}/health")
    (record,) = _told(caplog)
    assert record.levelno == logging.ERROR
    assert record.exc_info


def _told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "no answer" in record.getMessage()]
