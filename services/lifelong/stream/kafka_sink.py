"""Writing to Kafka."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from lifelong.config.shared import KafkaSettings
from lifelong.errors import StreamError
from lifelong.stream.kafka_client import MAX_RECORD_BYTES, MAX_REQUEST_BYTES, connect, described, reachable

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0
# The producer itself would take in records until memory is full.
_MAX_BUFFERED_BYTES = 4 * MAX_REQUEST_BYTES
# What a record needs in memory besides its key, value and headers; roughly.
_RECORD_OVERHEAD_BYTES = 200


class _Producer(KafkaProducer):
    closing = False

    def flush(self, timeout: float | None = None) -> None:
        """When the original, on closing, could not send everything in time, it raises and leaves its thread running."""
        try:
            super().flush(timeout)
        except KafkaTimeoutError as error:
            if not self.closing:
                raise
            log.warning("not all records could be sent before closing: %s", described(error))


class KafkaSink:
    """A :class:`~lifelong.stream.base.Sink`. Safe to share between threads; then ``flush`` waits for the records of all
    of them, and an error of one thread's record may be raised in another.

    ``patience_seconds``: after so long without a broker that takes a record, its send has failed.
    """

    def __init__(self, settings: KafkaSettings, *, patience_seconds: float = 60.0) -> None:
        self._settings = settings
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []
        self._num_buffered_bytes = 0
        self._worn_out = False
        self._producer = self._connect()

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
        if key is None and value is None:
            raise ValueError("a record needs a key or a value")
        name = self._settings.topic_prefix + topic
        with self._lock, reachable(self._settings, f"sending to {name}"):
            self._renew()
            if partition is not None and partition not in self._producer.partitions_for(name):
                raise StreamError(f"{name} has no partition {partition}: see `lifelong topics check`")
            future = self._producer.send(
                name,
                value=value,
                key=key,
                headers=list(headers),
                partition=partition,
                timestamp_ms=None if time is None else int(time * 1000),
            )
            self._num_buffered_bytes += len(value or b"") + len(key or b"") + _RECORD_OVERHEAD_BYTES
        future.add_errback(self._failures.append)
        if self._num_buffered_bytes > _MAX_BUFFERED_BYTES:
            self._wait()

    def flush(self) -> None:
        self._wait()
        if self._failures:
            failures, self._failures = self._failures, []
            self._worn_out = True
            with reachable(self._settings, f"sending; of {len(failures)} records that failed the first"):
                raise failures[0]

    def close(self) -> None:
        self._close(_CLOSE_SECONDS)

    def _connect(self) -> Any:
        return connect(
            _Producer,
            self._settings,
            self._patience_seconds,
            acks="all",
            # The broker drops repeated sends and keeps the order, also when sends are retried.
            enable_idempotence=True,
            compression_type="lz4",
            linger_ms=5,
            batch_size=64 * 1024,
            max_request_size=MAX_RECORD_BYTES,
            max_block_ms=int(self._patience_seconds * 1000),
            delivery_timeout_ms=int(self._patience_seconds * 1000),
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def _renew(self) -> None:
        """After a record has failed, kafka-python's producer may fail all others with the same error, for ever."""
        if self._worn_out:
            self._close(0)
            self._producer = self._connect()
            self._worn_out = False

    def _close(self, timeout_seconds: float) -> None:
        self._producer.closing = True
        try:
            self._producer.close(timeout=timeout_seconds)
        except KafkaError as error:
            # Whoever needs to know that records have arrived has flushed.
            log.warning("closing the producer: %s", described(error))

    def _wait(self) -> None:
        self._num_buffered_bytes = 0
        with reachable(self._settings, "waiting for the broker to have the records"):
            try:
                # Longer than a record may take to fail, so that it is its own error that is raised.
                self._producer.flush(timeout=self._patience_seconds + _CLOSE_SECONDS)
            except KafkaTimeoutError:
                self._worn_out = True
                raise
