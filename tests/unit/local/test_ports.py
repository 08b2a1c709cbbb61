from __future__ import annotations

import socket

import pytest

from lifelong.local import ports


def test_a_port_is_not_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may offer one again as soon as it is let go."""
    offered = iter([40001, 40001, 40002])

    class Offer(socket.socket):
        def bind(self, address: object) -> None: ...

        def getsockname(self) -> tuple[str, int]:
            return ports.HOST, next(offered)

    monkeypatch.setattr(ports, "_given", set())
    monkeypatch.setattr(ports.socket, "socket", Offer)
    assert [ports.free_port(), ports.free_port()] == [40001, 40002]
