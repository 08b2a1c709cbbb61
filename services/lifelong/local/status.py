"""What runs, where, and how well; as plain data."""

from __future__ import annotations

from typing import Any, Literal

import httpx
import msgspec

ProcessState = Literal["running", "ended", "stopped"]
"""``ended``: it was started and is gone, and nobody stopped it."""

_TIMEOUT_SECONDS = 2.0


class ProcessStatus(msgspec.Struct, frozen=True):
    name: str
    state: ProcessState
    ready: bool
    """It answers, and says that it works."""
    pid: int | None = None
    exit_code: int | None = None
    """Known only to the program that started it; minus the signal, if one ended it."""
    metrics: str | None = None
    """URL for Prometheus. Kafka and Valkey have none."""
    failure: str | None = None
    """What a process says that is wrong with it."""
    log: str = ""


class StackStatus(msgspec.Struct, frozen=True):
    home: str
    running: bool
    """There is a stack to talk to: its servers run, whatever became of the processes."""
    ready: bool
    """All of it works."""
    kafka: str
    """Bootstrap servers, host:port."""
    redis: str
    """URL."""
    http: str
    """Base URL of the inference process: OpenAI-compatible below ``/v1``."""
    artifacts: str
    """Folder with all versions."""
    live_version: str | None
    """line@number, as inference says; ``None`` while it does not answer."""
    processes: tuple[ProcessStatus, ...]
    """Also Kafka and Valkey, unless they are somebody else's."""

    def process(self, name: str) -> ProcessStatus:
        """Raises:
        KeyError: the stack has none of this name.
        """
        for process in self.processes:
            if process.name == name:
                return process
        raise KeyError(name)


def is_ready(base_url: str) -> bool:
    # Loopback never goes through a proxy, whatever the environment says.
    with httpx.Client(trust_env=False, timeout=_TIMEOUT_SECONDS) as client:
        try:
            return client.get(f"{base_url}/ready").status_code == 200
        except httpx.TransportError:
            return False


def health(base_url: str) -> dict[str, Any]:
    """What a process says of itself; empty while it does not answer."""
    with httpx.Client(trust_env=False, timeout=_TIMEOUT_SECONDS) as client:
        try:
            report = client.get(f"{base_url}/health").json()
        except (httpx.TransportError, ValueError):
            return {}
    return report if isinstance(report, dict) else {}
