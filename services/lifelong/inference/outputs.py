"""Every answer on its way out: to the outputs topic, and to where feedback can find it by its id."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

from lifelong.contracts import redis_keys, topics
from lifelong.contracts.codec import decode, encode
from lifelong.contracts.requests import Output
from lifelong.errors import OverloadedError, UnreachableError
from lifelong.runtime.redis import connect_redis, redis_errors
from lifelong.stream.base import Sink

log = logging.getLogger(__name__)

_BATCH = 200
_RETRY_SECONDS = 1.0
_DAY_SECONDS = 24 * 3600


class OutputStore:
    """Answers by id in Redis, for some days."""

    def __init__(self, url: str, line: str, days: float) -> None:
        self._url = url
        self._line = line
        self._ttl_seconds = max(1, int(days * _DAY_SECONDS))
        self._redis: Any = connect_redis(url)

    def put(self, outputs: list[Output]) -> None:
        with redis_errors(self._url):
            pipeline = self._redis.pipeline(transaction=False)
            for output in outputs:
                pipeline.set(redis_keys.output(self._line, output.id), encode(output), ex=self._ttl_seconds)
            pipeline.execute()

    def get(self, output_id: str) -> Output | None:
        """Raises UnreachableError."""
        with redis_errors(self._url):
            value = self._redis.get(redis_keys.output(self._line, output_id))
        return None if value is None else decode(value, Output)


class Outputs:
    """A thread that publishes what is handed over, again and again until it is out.

    Args:
        max_waiting, required: see ``InferenceSettings.outputs_waiting`` and ``require_outputs``.
    """

    def __init__(self, sink: Sink, store: OutputStore, *, max_waiting: int, required: bool) -> None:
        self._sink = sink
        self._store = store
        self._max_waiting = max_waiting
        self._required = required
        self._queue: queue.Queue[Output] = queue.Queue()
        self._stop = threading.Event()
        self._num_dropped = 0
        self.trouble: str | None = None
        """Why answers are waiting."""
        self._thread = threading.Thread(target=self._run, name="outputs", daemon=True)
        self._thread.start()

    def check_room(self) -> None:
        """Raises OverloadedError: so many answers wait to be published that none may be added."""
        if self._required and self._queue.qsize() >= self._max_waiting:
            raise OverloadedError(
                f"{self._queue.qsize()} answers wait to be published: {self.trouble or 'please wait'}"
            )

    def put(self, output: Output) -> None:
        """Never blocks."""
        if not self._required and self._queue.qsize() >= self._max_waiting:
            self._num_dropped += 1
            log.warning("answer %s is not published; %d were dropped so far", output.id, self._num_dropped)
            return
        self._queue.put(output)

    def flush(self) -> None:
        """Wait until all that was handed over is out, however long that takes."""
        self._queue.join()

    def close(self, timeout_seconds: float) -> None:
        self._stop.set()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive() or self._queue.qsize():
            log.error("%d answers could not be published: %s", self._queue.qsize(), self.trouble)

    def _run(self) -> None:
        while not (self._stop.is_set() and self._queue.empty()):
            batch = self._next_batch()
            while batch:
                try:
                    for output in batch:
                        key = output.request_id.encode()
                        self._sink.send(topics.OUTPUTS.name, encode(output), key=key)
                    self._sink.flush()
                    self._store.put(batch)
                    self.trouble = None
                    break
                except UnreachableError as error:
                    self.trouble = str(error)
                    log.warning("answers are not published yet, trying again: %s", error)
                    if self._stop.wait(_RETRY_SECONDS):
                        return
            for _ in batch:
                self._queue.task_done()

    def _next_batch(self) -> list[Output]:
        try:
            batch = [self._queue.get(timeout=0.1)]
        except queue.Empty:
            return []
        while len(batch) < _BATCH and not self._queue.empty():
            batch.append(self._queue.get_nowait())
        return batch
