"""Ports on the loopback interface."""

from __future__ import annotations

import contextlib
import socket

import psutil

from lifelong.errors import ConfigError

HOST = "127.0.0.1"
"""Nothing of the embedded stack listens to other machines: it has no passwords."""


_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on now. No port twice in a process: one that was given may be listened on later."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections that were closed a moment ago do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def is_open(port: int, host: str = HOST, timeout_seconds: float = 1) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection((host, port), timeout_seconds).close()
    except OSError:
        return False
    return True


def claim(name: str, wanted: int, kept: int) -> int:
    """The port to start a server on: the one that was asked for, else the one it had before, else a free one.

    A port that clients know should not change without need, one that the user named never.

    Raises:
        ConfigError: the port that was asked for is taken; says by whom if that can be known.
    """
    if wanted:
        if not is_free(wanted):
            raise ConfigError(name, f"port {wanted} is taken{_owner(wanted)}: stop that, or choose another port or 0")
        return wanted
    return kept if kept and is_free(kept) else free_port()


def _owner(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port
            if listens and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
