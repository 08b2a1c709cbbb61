"""A running answer, as its asker sees it: text as it comes, the whole when it is done, and a way to call it off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Literal

import msgspec

from lifelong.model.detokenise import Detokeniser

FinishReason = Literal["stop", "length", "cancelled", "error"]


class Piece(msgspec.Struct, frozen=True):
    """What one step added. The text lags behind the tokens while it is not certain."""

    text: str
    tokens: tuple[int, ...]


class Answer(msgspec.Struct, frozen=True):
    text: str
    """Without special tokens and without the stop string."""
    tokens: tuple[int, ...]
    """All that were generated, the one that ended it included."""
    logprobs: tuple[float, ...]
    """Of each token, in nats, under the version at temperature 1."""
    finish_reason: FinishReason
    num_prompt_tokens: int
    error: str | None = None


class RunningAnswer:
    """Iterate over it (``for`` or ``async for``, from any thread) for the pieces; ``result`` waits for the end.

    Nothing here blocks the thread that generates. An error ends the pieces and is in the result: nothing is raised.
    """

    def __init__(
        self,
        version: str,
        num_prompt_tokens: int,
        detokeniser: Detokeniser,
        cancel: Callable[[RunningAnswer], None],
    ) -> None:
        self.version = version
        """The key of the generation that answers, from first to last token."""
        self.num_prompt_tokens = num_prompt_tokens
        self._detokeniser = detokeniser
        self._cancel = cancel
        self._changed = threading.Condition()
        self._pieces: list[Piece] = []
        self._logprobs: list[float] = []
        self._answer: Answer | None = None
        self._listeners: list[Callable[[Piece | Answer], None]] = []

    @property
    def done(self) -> bool:
        return self._answer is not None

    def result(self, timeout: float | None = None) -> Answer:
        """
        Raises:
            TimeoutError: not done after ``timeout`` seconds; it goes on.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._answer is not None, timeout):
                raise TimeoutError(f"no complete answer within {timeout} s")
            assert self._answer is not None
            return self._answer

    def cancel(self) -> None:
        """Stop generating; does nothing when it is done."""
        self._cancel(self)

    def listen(self, listener: Callable[[Piece | Answer], None]) -> None:
        """Call ``listener`` with each piece so far and to come, in order, then with the answer. It must not block."""
        with self._changed:
            for piece in self._pieces:
                listener(piece)
            if self._answer is not None:
                listener(self._answer)
            else:
                self._listeners.append(listener)

    def __iter__(self) -> Iterator[Piece]:
        index = 0
        while True:
            with self._changed:
                while len(self._pieces) <= index:
                    if self._answer is not None:
                        return
                    self._changed.wait()
                piece = self._pieces[index]
            index += 1
            yield piece

    async def __aiter__(self) -> AsyncIterator[Piece]:
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Piece | Answer]()

        def forward(item: Piece | Answer) -> None:
            if not loop.is_closed():  # the asker may be gone
                loop.call_soon_threadsafe(queue.put_nowait, item)

        self.listen(forward)
        while not isinstance(item := await queue.get(), Answer):
            yield item

    # The rest is for the generation.

    def add(self, tokens: tuple[int, ...], logprobs: tuple[float, ...]) -> bool:
        """Take in what one step made. True when a stop string has come, and no more is wanted."""
        with self._changed:
            if self._answer is not None:
                return True
            self._logprobs += logprobs
            self._tell(Piece(self._detokeniser.push(tokens), tokens))
            return self._detokeniser.stopped

    def finish(self, reason: FinishReason, error: str | None = None) -> bool:
        """False when it was done already."""
        with self._changed:
            if self._answer is not None:
                return False
            if rest := self._detokeniser.flush():
                self._tell(Piece(rest, ()))
            if self._detokeniser.stopped and reason == "length":
                reason = "stop"
            answer = Answer(
                text="".join(piece.text for piece in self._pieces),
                tokens=tuple(token for piece in self._pieces for token in piece.tokens),
                logprobs=tuple(self._logprobs),
                finish_reason=reason,
                num_prompt_tokens=self.num_prompt_tokens,
                error=error,
            )
            self._answer = answer
            for listener in self._listeners:
                listener(answer)
            self._listeners.clear()
            self._changed.notify_all()
            return True

    def _tell(self, piece: Piece) -> None:
        self._pieces.append(piece)
        for listener in self._listeners:
            listener(piece)
        self._changed.notify_all()
