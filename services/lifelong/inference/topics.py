"""Requests from the topic, answers to the topic."""

from __future__ import annotations

import hashlib
import logging
import threading

import msgspec

from lifelong.contracts import metrics as names
from lifelong.contracts.codec import decode
from lifelong.contracts.requests import Output, Request
from lifelong.errors import CorruptVersionError, DecodeError, OverloadedError, RegistryError, UnreachableError
from lifelong.inference.handler import Answerer, Begun, PromptTooLongError
from lifelong.inference.outputs import Outputs
from lifelong.inference.wire import Ask
from lifelong.runtime.clock import Clock
from lifelong.runtime.metrics import Metrics
from lifelong.stream.base import GroupSource, Partition, Record
from lifelong.stream.dead_letters import DeadLetters

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.2


class _Id(msgspec.Struct):
    id: str


class RequestTopic:
    """Answers the requests of one poll side by side, and commits when the outputs are out: an answer may be given
    twice after a crash, with the same output id, but never not at all."""

    def __init__(
        self,
        source: GroupSource,
        letters: DeadLetters,
        answerer: Answerer,
        outputs: Outputs,
        metrics: Metrics,
        clock: Clock,
        *,
        at_once: int,
    ) -> None:
        self._source = source
        self._letters = letters
        self._answerer = answerer
        self._outputs = outputs
        self._metrics = metrics
        self._clock = clock
        self._at_once = at_once

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self.turn(stop)
            except UnreachableError as error:
                log.warning("requests cannot be read now, trying again: %s", error)
                stop.wait(1.0)

    def turn(self, stop: threading.Event) -> int:
        """One poll, answered; the number of requests in it."""
        records = self._source.poll(0.2, self._at_once)
        begun: list[Begun] = []
        positions: dict[Partition, int] = {}
        for record in records:
            self._metrics.count(names.RECORDS, topic=record.topic)
            lag = max(0.0, self._clock.now() - record.time)
            self._metrics.set(names.LAG_SECONDS, lag, topic=record.topic, partition=str(record.partition))
            found = self._begin(record, stop)
            if stop.is_set() and found is None:
                break  # Not answered: whoever comes next does it.
            if found is not None:
                begun.append(found)
            positions[Partition(record.topic, record.partition)] = record.offset + 1
        for one in begun:
            self._outputs.put(self._answerer.finish(one, one.running.result()))
        if positions:
            self._letters.flush()
            self._outputs.flush()
            self._source.commit(positions)
        self._show_lag()
        return len(records)

    def _begin(self, record: Record, stop: threading.Event) -> Begun | None:
        """``None``: refused, and the asker was told; or told to stop."""
        try:
            request = decode(record.value, Request)
        except DecodeError as error:
            self._refuse(record, error)
            return None
        while not stop.is_set():
            try:
                begun = self._answerer.begin(Ask(request), "topic")
                self._letters.note_good()
                return begun
            except (OverloadedError, UnreachableError):
                stop.wait(_RETRY_SECONDS)
            except PromptTooLongError as error:
                self._refuse(record, DecodeError("prompt-too-long", str(error)))
                return None
            except (RegistryError, CorruptVersionError) as error:
                self._refuse(record, DecodeError("unknown-model", str(error)))
                return None
        return None

    def _refuse(self, record: Record, error: DecodeError) -> None:
        """To the dead letters; and where the id can be read, whoever asked hears of it."""
        self._letters.send(record, error)
        try:
            identifier = msgspec.json.decode(record.value or b"", type=_Id).id
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        self._outputs.put(
            Output(
                id=hashlib.sha256(f"{identifier}\nrefused".encode()).hexdigest()[:32],
                request_id=identifier,
                version="",
                base="",
                messages=(),
                answer="",
                finish_reason="error",
                created=self._clock.now(),
                error=str(error),
            )
        )

    def _show_lag(self) -> None:
        for partition, waiting in self._source.pending().items():
            labels = {"topic": partition.topic, "partition": str(partition.number)}
            self._metrics.set(names.LAG_RECORDS, waiting, **labels)
            if waiting == 0:
                self._metrics.set(names.LAG_SECONDS, 0, **labels)

    def close(self) -> None:
        self._source.close()
