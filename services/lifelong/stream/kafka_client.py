"""What all our Kafka clients have in common: how to reach the brokers, and how their errors read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka.errors import KafkaError

from lifelong.config.shared import KafkaSettings
from lifelong.contracts.topics import MAX_MESSAGE_BYTES
from lifelong.errors import UnreachableError

# A record of the largest size, with what Kafka puts around it.
MAX_REQUEST_BYTES = MAX_MESSAGE_BYTES + 64 * 1024
REQUEST_TIMEOUT_MS = 30_000


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """The options by which kafka-python's consumer, producer and admin client find and trust the brokers."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "security_protocol": settings.security_protocol,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "reconnect_backoff_max_ms": 2_000,
        "receive_message_max_bytes": 4 * MAX_REQUEST_BYTES,
    }
    if settings.ssl_cafile:
        options["ssl_cafile"] = settings.ssl_cafile
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism or "PLAIN"
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.sasl_password
    return options


@contextmanager
def reachable(settings: KafkaSettings, doing: str) -> Iterator[None]:
    """Turns the client's errors into ours.

    Raises:
        UnreachableError: with what was being done, where, and what the client said.
    """
    try:
        yield
    except KafkaError as error:
        problem = f"{type(error).__name__}: {error}".rstrip(": ")
        raise UnreachableError(f"Kafka at {settings.bootstrap_servers}, {doing}: {problem}") from error
