"""Kafka and Valkey alone, for tests and for working on one process."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from lifelong.local.child import Child, stop
from lifelong.local.kafka import KafkaBroker
from lifelong.local.ports import free_port
from lifelong.local.valkey import ValkeyServer


class Servers:
    """``kafka`` is host:port, ``redis`` a URL. They run until ``stop``, which is called on leaving a ``with``."""

    def __init__(self, kafka: str, redis: str, children: list[Child]) -> None:
        self.kafka = kafka
        self.redis = redis
        self._children = children

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(child.pid for child in self._children)

    def stop(self) -> None:
        for child in reversed(self._children):
            stop(child)

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_servers(home: Path) -> Servers:
    """Start both on free ports and block until they answer; data and logs are kept below ``home``.

    Raises: as :meth:`KafkaBroker.start` and :meth:`ValkeyServer.start`.
    """
    broker = KafkaBroker(home / "kafka", home / "logs" / "kafka.log", free_port(), free_port())
    valkey = ValkeyServer(home / "valkey", home / "logs" / "valkey.log", free_port())
    children: list[Child] = []
    try:
        children.append(valkey.start())
        children.append(broker.start())
    except BaseException:
        for child in reversed(children):
            stop(child)
        raise
    return Servers(broker.address, valkey.url, children)
