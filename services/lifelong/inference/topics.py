"""Requests from the topic, answers to the topic."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Callable

import msgspec

from lifelong.contracts import metrics as names
from lifelong.contracts.codec import decode
from lifelong.contracts.requests import Output, Request
from lifelong.errors import DecodeError, OverloadedError, RegistryError, UnreachableError
from lifelong.inference.handler import Answerer, Begun, PromptError, PromptTooLongError
from lifelong.inference.outputs import Outputs
from lifelong.inference.progress import Progress
from lifelong.inference.wire import Ask
from lifelong.model.answer import Answer, Piece
from lifelong.runtime.clock import Clock
from lifelong.runtime.metrics import Metrics
from lifelong.stream.base import GroupSource, Partition, Record
from lifelong.stream.dead_letters import DeadLetters

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_RETRY_SECONDS = 1.0


class _Id(msgspec.Struct):
    id: str


class RequestTopic:
    """Answers up to ``at_once`` requests side by side, beginning one as soon as another is done.

    A position is committed when everything before it is answered and the answers are on the outputs topic. So a request
    may be answered twice after a crash, with the same output id if by the same version, but never not at all. While
    the engine is full, requests wait here and no more are read.

    All methods but ``close`` are for one thread.
    """

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
        self._waiting: deque[Record] = deque()
        self._refused: list[tuple[Record, DecodeError]] = []
        self._progress = Progress()
        self._generation = -1
        self._one_done = threading.Event()
        self.trouble: str | None = None
        """Why requests are not read, or not committed."""

    def run(self, stop: threading.Event, *, drain_seconds: float) -> None:
        """Until told to stop; then what has begun is answered and committed, within ``drain_seconds``.

        Raises:
            TooManyDeadLettersError: this process, or whoever asks, needs mending.
        """
        while not stop.is_set():
            self._try(self.turn, stop)
        # What was read and has not begun is for whoever comes next, and so is what stands behind it.
        for record in self._waiting:
            self._progress.give_back(_partition(record), record.offset)
        deadline = self._clock.monotonic() + drain_seconds
        while self._progress.num_open and self._clock.monotonic() < deadline:
            self._one_done.wait(0.05)
            self._one_done.clear()
            self._try(self._settle, stop)

    def turn(self) -> None:
        """Read if there is room, begin what can be begun, commit what is out."""
        for record in self._read():
            self._metrics.count(names.RECORDS, topic=record.topic)
            lag = max(0.0, self._clock.now() - record.time)
            self._metrics.set(names.LAG_SECONDS, lag, topic=record.topic, partition=str(record.partition))
            if self._progress.begin(_partition(record), record.offset):
                self._waiting.append(record)
        while self._waiting:
            record = self._waiting[0]
            try:
                self._begin(record)
            except DecodeError as error:
                self._refused.append((record, error))
            except (OverloadedError, UnreachableError) as error:
                log.debug("a request waits: %s", error)
                break
            self._waiting.popleft()
        self._settle()
        self._show_lag()

    @property
    def num_open(self) -> int:
        """Requests that were read and whose answers are not out yet."""
        return self._progress.num_open

    def close(self) -> None:
        self._source.close()

    def _try(self, work: Callable[[], None], stop: threading.Event) -> None:
        try:
            work()
            self.trouble = None
        except UnreachableError as error:
            if self.trouble is None:
                log.warning("requests from the topic wait: %s", error)
            self.trouble = str(error)
            stop.wait(_RETRY_SECONDS)

    def _read(self) -> list[Record]:
        room = self._at_once - self._progress.num_running
        if room <= 0 or self._waiting:
            self._one_done.wait(_POLL_SECONDS)
            self._one_done.clear()
            return []
        records = self._source.poll(_POLL_SECONDS, room)
        if self._source.generation != self._generation:
            self._generation = self._source.generation
            assigned = self._source.assigned()
            self._progress.assign(assigned)
            self._waiting = deque(record for record in self._waiting if _partition(record) in assigned)
        return records

    def _begin(self, record: Record) -> None:
        """
        Raises:
            DecodeError: it can never be answered. OverloadedError, UnreachableError: not now.
        """
        request = decode(record.value, Request)
        try:
            begun = self._answerer.begin(Ask(request), "topic")
        except UnreachableError:
            raise
        except PromptTooLongError as error:
            raise DecodeError("prompt-too-long", str(error)) from error
        except PromptError as error:
            raise DecodeError("bad-prompt", str(error)) from error
        except RegistryError as error:
            raise DecodeError("unknown-model", str(error)) from error
        self._letters.note_good()
        begun.running.listen(lambda item: self._hear(record, begun, item))

    def _hear(self, record: Record, begun: Begun, item: Piece | Answer) -> None:
        """In the engine's thread."""
        if isinstance(item, Piece):
            self._answerer.note_piece(begun)
            return
        ticket = self._outputs.put(self._answerer.finish(begun, item))
        self._progress.answered(_partition(record), record.offset, ticket)
        self._one_done.set()

    def _refuse(self) -> None:
        """To the dead letters; and where the id can be read, whoever asked hears of it.

        Raises UnreachableError: tried again in the next turn.
        """
        if not self._refused:
            return
        for record, error in self._refused:
            self._letters.send(record, error)
        self._letters.flush()
        for record, error in self._refused:
            self._progress.answered(_partition(record), record.offset, self._tell(record, error))
        self._refused.clear()

    def _tell(self, record: Record, error: DecodeError) -> int:
        try:
            identifier = msgspec.json.decode(record.value or b"", type=_Id).id
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return 0
        return self._outputs.put(
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

    def _settle(self) -> None:
        self._refuse()
        positions = self._progress.done(self._outputs.is_out)
        if positions:
            self._source.commit(positions)
            self._progress.committed(positions)

    def _show_lag(self) -> None:
        for partition, waiting in self._source.pending().items():
            labels = {"topic": partition.topic, "partition": str(partition.number)}
            self._metrics.set(names.LAG_RECORDS, waiting, **labels)
            if waiting == 0:
                self._metrics.set(names.LAG_SECONDS, 0, **labels)


def _partition(record: Record) -> Partition:
    return Partition(record.topic, record.partition)
