"""Pointers in the memory of this process, for simulations and tests."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import msgspec

from lifelong.errors import FencedError, RegistryError
from lifelong.registry.base import PointerState
from lifelong.runtime.clock import Clock


@dataclass
class _Line:
    state: PointerState | None = None
    epoch: int = 0
    newest_writer: str | None = None
    """Empty once that one has given the lease back."""
    holder: str | None = None
    deadline: float = 0.0


class LocalPointers:
    """``Pointers`` whose leases run out by the clock given."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}

    def read(self, line: str) -> PointerState | None:
        with self._lock:
            return self._lines.get(line, _Line()).state

    def acquire(self, line: str, writer: str, ttl_seconds: float, at_least_epoch: int) -> int | None:
        with self._lock:
            ours = self._lines.setdefault(line, _Line())
            if self._holder(ours) not in (None, writer):
                return None
            ours.epoch = max(ours.epoch, at_least_epoch) + 1
            if ours.state is not None:
                ours.state = msgspec.structs.replace(ours.state, epoch=ours.epoch)
            ours.newest_writer = writer
            self._hold(ours, writer, ttl_seconds)
            return ours.epoch

    def renew(self, line: str, writer: str, ttl_seconds: float) -> bool:
        with self._lock:
            ours = self._lines.setdefault(line, _Line())
            if self._holder(ours) not in (None, writer) or ours.newest_writer != writer:
                return False
            self._hold(ours, writer, ttl_seconds)
            return True

    def reclaim(self, line: str, writer: str, ttl_seconds: float, epoch: int) -> bool:
        with self._lock:
            ours = self._lines.setdefault(line, _Line())
            if self._holder(ours) is not None or ours.newest_writer is not None or ours.epoch > epoch:
                return False
            ours.epoch = epoch
            if ours.state is not None:
                ours.state = msgspec.structs.replace(ours.state, epoch=epoch)
            ours.newest_writer = writer
            self._hold(ours, writer, ttl_seconds)
            return True

    def release(self, line: str, writer: str) -> None:
        with self._lock:
            ours = self._lines.setdefault(line, _Line())
            if self._holder(ours) == writer:
                ours.holder = None
            if ours.newest_writer == writer:
                ours.newest_writer = ""

    def writer(self, line: str) -> str | None:
        with self._lock:
            return self._holder(self._lines.get(line, _Line()))

    def move(
        self, line: str, *, epoch: int, candidate: int, live: int | None, now: float, writer: str | None = None
    ) -> PointerState:
        with self._lock:
            ours, state = self._known(line)
            if epoch < ours.epoch:
                raise FencedError(f"line {line!r}: epoch {epoch} is over, {ours.epoch} has begun")
            if writer is not None and ours.newest_writer not in (None, writer):
                raise FencedError(f"line {line!r}: another writer has taken over, also with epoch {epoch}")
            ours.epoch = epoch
            state = msgspec.structs.replace(state, candidate=candidate, epoch=epoch)
            if live is not None and not state.held and live != state.live:
                state = msgspec.structs.replace(state, live=live, moved=now)
            ours.state = state
            return state

    def set_live(self, line: str, number: int, *, held: bool, now: float) -> PointerState:
        with self._lock:
            ours, state = self._known(line)
            moved = now if number != state.live else state.moved
            ours.state = msgspec.structs.replace(state, live=number, held=held, moved=moved)
            return ours.state

    def restore(self, line: str, state: PointerState) -> PointerState:
        with self._lock:
            ours = self._lines.setdefault(line, _Line())
            if ours.state is None:
                ours.epoch = max(ours.epoch, state.epoch)
                ours.state = msgspec.structs.replace(state, epoch=ours.epoch)
            return ours.state

    def _known(self, line: str) -> tuple[_Line, PointerState]:
        ours = self._lines.get(line)
        if ours is None or ours.state is None:
            raise RegistryError(f"nothing is known of line {line!r}")
        return ours, ours.state

    def _holder(self, ours: _Line) -> str | None:
        return ours.holder if self._clock.monotonic() < ours.deadline else None

    def _hold(self, ours: _Line, writer: str, ttl_seconds: float) -> None:
        ours.holder = writer
        ours.deadline = self._clock.monotonic() + ttl_seconds
