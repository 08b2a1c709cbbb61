"""What all our Kafka clients have in common: how to reach the brokers, and how their errors read."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from kafka.errors import (
    InvalidProducerEpochError,
    KafkaConfigurationError,
    KafkaError,
    OutOfOrderSequenceNumberError,
    UnknownProducerIdError,
    UnknownTopicOrPartitionError,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket

from lifelong.config.shared import KafkaSettings
from lifelong.contracts.topics import MAX_MESSAGE_BYTES
from lifelong.errors import ConfigError, MissingPartError, StreamError, UnreachableError

# With what Kafka puts around it, and what packing adds to what cannot be packed, this is one message for the broker.
MAX_RECORD_BYTES = MAX_MESSAGE_BYTES - 64 * 1024
MAX_REQUEST_BYTES = MAX_MESSAGE_BYTES + 64 * 1024
# A broker that does not answer a request for so long has lost it.
_REQUEST_SECONDS = 30.0
_CONNECT_SECONDS = 30.0

# The producer goes on after these by itself; only the records under way are lost, and may be sent again.
_PASSING = (OutOfOrderSequenceNumberError, UnknownProducerIdError, InvalidProducerEpochError)


_SOCKETS: WeakKeyDictionary[Any, WeakSet[socket.socket]] = WeakKeyDictionary()
"""By event loop, of which each client has one."""


class _Direct(KafkaNetSocket):
    """No proxy at all, but kafka-python lets one say how it connects only under the name of one.

    The original leaves the socket of every connection that failed, one in two seconds while a broker is away, to the
    garbage collector.
    """

    SCHEMES = ("direct",)

    async def sock_connect(self, net: Any, sock: socket.socket, sockaddr: Any, timeout_at: float | None = None) -> Any:
        _SOCKETS.setdefault(net, WeakSet()).add(sock)
        try:
            return await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise


class _Client(KafkaNetClient):
    """Closed, it has no socket left. The original leaves those on which something was yet to be written."""

    def close(self, node_id: Any = None) -> None:
        super().close(node_id)
        if node_id is None:
            for sock in list(_SOCKETS.pop(self._net, ())):
                sock.close()


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """The options by which kafka-python's consumer, producer and admin client find and trust the brokers.

    Raises:
        ConfigError: the file with the certificates is not there.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "security_protocol": settings.security_protocol,
        "reconnect_backoff_max_ms": 2_000,
        "receive_message_max_bytes": 4 * MAX_REQUEST_BYTES,
    }
    if settings.ssl_cafile:
        if not Path(settings.ssl_cafile).is_file():
            raise ConfigError("kafka.ssl_cafile", f"there is no file {settings.ssl_cafile}")
        options["ssl_cafile"] = settings.ssl_cafile
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism or "PLAIN"
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.sasl_password
    return options


def connect(make: Callable[..., Any], settings: KafkaSettings, patience_seconds: float, **options: Any) -> Any:
    """One of kafka-python's clients, connected.

    Raises:
        UnreachableError: no broker answered within ``patience_seconds``, at most 30.
        StreamError: it answered, and refuses us.
    """
    opened: list[_Client] = []

    def net(**config: Any) -> _Client:
        opened.append(_Client(**config))
        return opened[-1]

    with reachable(settings, "connecting"):
        try:
            return make(
                **client_options(settings),
                request_timeout_ms=int(min(_REQUEST_SECONDS, patience_seconds / 2) * 1000),
                bootstrap_timeout_ms=int(min(_CONNECT_SECONDS, patience_seconds) * 1000),
                kafka_client=net,
                proxy_url="direct://",
                **options,
            )
        except BaseException:
            # A client that could not connect leaves its thread and its sockets behind.
            for client in opened:
                client.close()
            raise


@contextmanager
def reachable(settings: KafkaSettings, doing: str) -> Iterator[None]:
    """Turns the client's errors into ours.

    Raises:
        UnreachableError: trying again may help. MissingPartError: there is no such topic. StreamError: the broker
        refuses. Each with what was being done, where, and what the client said.
    """
    try:
        yield
    except KafkaError as error:
        text = f"Kafka at {settings.bootstrap_servers}, {doing}: {described(error)}"
        if isinstance(error, KafkaConfigurationError):
            raise ConfigError("kafka", str(error)) from error
        if isinstance(error, UnknownTopicOrPartitionError):
            raise MissingPartError(f"{text}: create the topics with `lifelong topics apply`") from error
        if error.retriable or isinstance(error, _PASSING):
            raise UnreachableError(text) from error
        raise StreamError(text) from error


def described(error: BaseException) -> str:
    name = type(error).__name__
    said = str(error).removeprefix(name).removeprefix(": ")
    return f"{name}: {said}" if said else name
