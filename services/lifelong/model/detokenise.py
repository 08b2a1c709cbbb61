"""Text from tokens as they come: never half a character, never a part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_BROKEN = "\N{REPLACEMENT CHARACTER}"


class Detokeniser:
    """One per answer. What ``push`` and ``flush`` return, put together, is the decoded answer up to the stop string."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(text for text in stop if text)
        self._tokens: list[int] = []
        # Tokens before _begin are done with. Those from _begin to _read have been returned as text and are decoded
        # again with what follows, because some tokenizers write the first token of a text differently.
        self._begin = self._read = 0
        self._held = ""
        self.stopped = False

    def push(self, tokens: Sequence[int]) -> str:
        """The text that is certain now; "" while a character or a possible stop string is incomplete."""
        if self.stopped:
            return ""
        self._tokens += tokens
        whole = self._decode(self._begin)
        if whole.endswith(_BROKEN):
            return ""
        return self._release(self._advance(whole))

    def flush(self) -> str:
        """What was held back, when no more tokens will come."""
        if self.stopped:
            return ""
        text = self._release(self._advance(self._decode(self._begin)))
        rest, self._held = ("" if self.stopped else self._held), ""
        return text + rest

    def _decode(self, start: int, end: int | None = None) -> str:
        text: str = self._tokenizer.decode(
            self._tokens[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _advance(self, whole: str) -> str:
        fresh = whole[len(self._decode(self._begin, self._read)) :]
        self._begin, self._read = self._read, len(self._tokens)
        return fresh

    def _release(self, fresh: str) -> str:
        text = self._held + fresh
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of ``text`` that may be the beginning of ``stop``."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
