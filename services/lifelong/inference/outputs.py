"""Every answer on its way out: to the outputs topic, and to where feedback can find it by its id.

The topic is the record: an answer waits until the topic has it. Redis is only where feedback looks it up: while Redis
is away answers go out all the same, and the oldest of those that wait for it are given up when they become too many.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from lifelong.contracts import redis_keys, topics
from lifelong.contracts.codec import decode, encode
from lifelong.contracts.requests import Output
from lifelong.errors import UnreachableError
from lifelong.runtime.redis import connect_redis, redis_errors
from lifelong.stream.base import Sink

log = logging.getLogger(__name__)

_BATCH = 200
_DAY_SECONDS = 24 * 3600


class OutputStore:
    """Answers by id in Redis, for some days."""

    def __init__(self, url: str, line: str, days: float) -> None:
        self._url = url
        self._line = line
        self._ttl_seconds = max(1, int(days * _DAY_SECONDS))
        self._redis: Any = connect_redis(url)

    def put(self, outputs: Sequence[Output]) -> None:
        """Raises UnreachableError."""
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


class Store(Protocol):
    def put(self, outputs: Sequence[Output]) -> None: ...

    def get(self, output_id: str) -> Output | None: ...


class _Waiting(NamedTuple):
    output: Output
    value: bytes


class Outputs:
    """A thread that publishes what is handed over, again and again until it is out.

    Args:
        max_waiting, required: see ``InferenceSettings.outputs_waiting`` and ``require_outputs``.
    """

    def __init__(
        self, sink: Sink, store: Store, *, max_waiting: int, required: bool, retry_seconds: float = 1.0
    ) -> None:
        self._sink = sink
        self._store = store
        self._max_waiting = max_waiting
        self._required = required
        self._retry_seconds = retry_seconds
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._unstored: OrderedDict[str, Output] = OrderedDict()
        """By id: what is not in the store yet, whether it is out or not."""
        self._num_put = self._num_out = self._num_dropped = self._num_given_up = 0
        self._stopping = threading.Event()
        self._sink_trouble: str | None = None
        self._store_trouble: str | None = None
        self._next_store = 0.0
        self._thread = threading.Thread(target=self._run, name="outputs", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why answers are waiting, or were dropped."""
        found = [
            self._sink_trouble and f"{len(self._waiting)} answers wait to be published: {self._sink_trouble}",
            self._store_trouble and f"feedback cannot name the newest answers: {self._store_trouble}",
            self._num_dropped and f"{self._num_dropped} answers were not published",
            self._num_given_up and f"{self._num_given_up} answers cannot be named in feedback",
        ]
        return "; ".join(text for text in found if text) or None

    def check_room(self) -> None:
        """Raises UnreachableError: so many answers wait to be published that none may be added."""
        if self._required and len(self._waiting) >= self._max_waiting:
            raise UnreachableError(
                f"{len(self._waiting)} answers wait to be published, no more are given until they are out: "
                f"{self._sink_trouble or 'the broker is slow'}"
            )

    def put(self, output: Output) -> int:
        """Never blocks. The ticket by which ``is_out`` knows it."""
        value = encode(output)  # Here, so that the thread has nothing to do that could fail for one answer only.
        with self._changed:
            if not self._required and len(self._waiting) >= self._max_waiting:
                self._num_dropped += 1
                log.warning("answer %s is not published; %d were dropped so far", output.id, self._num_dropped)
                return 0
            self._num_put += 1
            self._waiting.append(_Waiting(output, value))
            self._unstored[output.id] = output
            self._changed.notify_all()
            return self._num_put

    def is_out(self, ticket: int) -> bool:
        """Whether the topic has it and all that were handed over before it."""
        return ticket <= self._num_out

    def flush(self, timeout_seconds: float | None = None) -> bool:
        """Wait until all that was handed over up to now is out and in the store; False: it is not yet."""
        with self._changed:
            ticket, unstored = self._num_put, set(self._unstored)
            return self._changed.wait_for(
                lambda: self.is_out(ticket) and unstored.isdisjoint(self._unstored), timeout_seconds
            )

    def find(self, output_id: str) -> Output | None:
        """An answer by its id, from the moment it was given. Raises UnreachableError."""
        with self._changed:
            waiting = self._unstored.get(output_id)
        return waiting or self._store.get(output_id)

    def close(self, timeout_seconds: float) -> None:
        """Publish what waits, but for no longer than this."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(timeout_seconds)
        if self._waiting:
            log.error("%d answers could not be published: %s", len(self._waiting), self._sink_trouble)

    def _run(self) -> None:
        while True:
            with self._changed:
                # Redis is tried again now and then, also when nothing else happens.
                self._changed.wait_for(
                    lambda: self._waiting or self._stopping.is_set(), self._retry_seconds if self._unstored else None
                )
                batch = list(itertools.islice(self._waiting, _BATCH))
            if batch and not self._publish(batch) and self._stopping.wait(self._retry_seconds):
                return
            self._put_into_store()
            if self._stopping.is_set() and not self._waiting:
                return

    def _publish(self, batch: Sequence[_Waiting]) -> bool:
        try:
            for output, value in batch:
                self._sink.send(topics.OUTPUTS.name, value, key=output.request_id.encode())
            self._sink.flush()
        except Exception as error:
            # Whatever it is: without this thread no answer would ever be published again.
            if self._sink_trouble is None:
                log.warning("answers are not published yet, trying again: %s", error, exc_info=_unexpected(error))
            self._sink_trouble = str(error)
            return False
        self._sink_trouble = None
        with self._changed:
            for _ in batch:
                self._waiting.popleft()
            self._num_out += len(batch)
            self._changed.notify_all()
        return True

    def _put_into_store(self) -> None:
        if time.monotonic() < self._next_store and not self._stopping.is_set():
            return
        while True:
            with self._changed:
                batch = list(itertools.islice(self._unstored.values(), _BATCH))
            if not batch:
                return
            try:
                self._store.put(batch)
            except Exception as error:
                if self._store_trouble is None:
                    log.warning("answers cannot be named in feedback: %s", error, exc_info=_unexpected(error))
                self._store_trouble = str(error)
                self._next_store = time.monotonic() + self._retry_seconds
                self._give_up_oldest()
                return
            self._store_trouble = None
            self._forget(batch)

    def _give_up_oldest(self) -> None:
        with self._changed:
            while len(self._unstored) > self._max_waiting + len(self._waiting):
                self._unstored.popitem(last=False)
                self._num_given_up += 1

    def _forget(self, stored: Sequence[Output]) -> None:
        with self._changed:
            for output in stored:
                self._unstored.pop(output.id, None)
            self._changed.notify_all()


def _unexpected(error: Exception) -> bool:
    return not isinstance(error, UnreachableError)
