"""Writing to Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafka import KafkaProducer

from lifelong.config.shared import KafkaSettings
from lifelong.stream.kafka_client import MAX_REQUEST_BYTES, client_options, reachable

_FLUSH_SECONDS = 60.0


class KafkaSink:
    """A :class:`~lifelong.stream.base.Sink`. Safe to share between threads; then ``flush`` waits for the records of all
    of them, and an error of one thread's record may be raised in another."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._failures: list[BaseException] = []
        with reachable(settings, "connecting"):
            self._producer = KafkaProducer(
                **client_options(settings),
                acks="all",
                # The broker drops repeated sends and keeps the order, also when sends are retried.
                enable_idempotence=True,
                compression_type="lz4",
                linger_ms=5,
                batch_size=64 * 1024,
                max_request_size=MAX_REQUEST_BYTES,
                delivery_timeout_ms=int(_FLUSH_SECONDS * 1000),
                allow_auto_create_topics=False,
            )

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        time: float | None = None,
    ) -> None:
        with reachable(self._settings, f"sending to {topic}"):
            future = self._producer.send(
                self._settings.topic_prefix + topic,
                value=value,
                key=key,
                headers=list(headers),
                partition=partition,
                timestamp_ms=None if time is None else int(time * 1000),
            )
        future.add_errback(self._failures.append)

    def flush(self) -> None:
        with reachable(self._settings, "waiting for the broker to have the records"):
            self._producer.flush(timeout=_FLUSH_SECONDS)
            if self._failures:
                failures, self._failures = self._failures, []
                raise failures[0]

    def close(self) -> None:
        producer: Any = self._producer
        producer.close(timeout=10)
