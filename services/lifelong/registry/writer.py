"""The right to write a line: one process at a time, replaced within seconds when it dies."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from lifelong.errors import FencedError, RegistryError, UnreachableError
from lifelong.registry.registry import Registry

log = logging.getLogger(__name__)

TTL_SECONDS = 8.0
"""A writer that was killed is replaced after this long. Nothing else hangs on it: one that is only slow takes its lease
up again where nobody waits for it, and else is stopped by its epoch."""


class Writer:
    """Holds the lease of a line and keeps it until ``close``.

    ``lost`` is set when somebody else has taken over: stop and write nothing more (what is written anyway is refused,
    by ``epoch``). A server that does not answer is no loss: nobody can take over without it either.
    """

    def __init__(self, registry: Registry, line: str, writer_id: str, epoch: int, ttl_seconds: float) -> None:
        self.line = line
        self.writer_id = writer_id
        self.epoch = epoch
        self.lost = threading.Event()
        self.reclaimed = threading.Event()
        """Set when the lease was lost with all that Redis knew, and taken up again: what only Redis knew must be said
        again. Whoever does that clears it."""
        self._registry = registry
        self._ttl_seconds = ttl_seconds
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start_heartbeat(self) -> None:
        assert self._thread is None
        self._thread = threading.Thread(target=self._beat_on, name=f"lease-{self.line}", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """Renew the lease once; the heartbeat's thread calls it, and simulations that have none."""
        pointers = self._registry.pointers
        try:
            renewed = pointers.renew(self.line, self.writer_id, self._ttl_seconds)
            if not renewed and pointers.reclaim(self.line, self.writer_id, self._ttl_seconds, self.epoch):
                log.warning("lease of %s was lost with all that Redis knew, and is taken up again", self.line)
                self.reclaimed.set()
                renewed = True
        except UnreachableError as error:
            log.warning("lease of %s not renewed, trying again: %s", self.line, error)
            return
        if not renewed:
            log.error("lease of %s is lost: another writer has taken over", self.line)
            self.lost.set()

    def check(self) -> None:
        """Raises FencedError: the lease is lost."""
        if self.lost.is_set():
            raise FencedError(f"another writer has taken over line {self.line!r}")

    def close(self) -> None:
        """Stop the heartbeat and give the lease back, so that the next writer need not wait for it to run out."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self._registry.pointers.release(self.line, self.writer_id)
        except UnreachableError as error:
            log.warning("lease of %s not given back, it runs out by itself: %s", self.line, error)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _beat_on(self) -> None:
        while not self._closed.wait(self._ttl_seconds / 3) and not self.lost.is_set():
            self.beat()


def acquire_writer(
    registry: Registry,
    line: str,
    writer_id: str,
    wait_seconds: float | None,
    stop: threading.Event,
    *,
    ttl_seconds: float = TTL_SECONDS,
    heartbeat: bool = True,
    tell: Callable[[str], None] = lambda why: None,
) -> Writer | None:
    """Wait for the lease of the line and take it. ``None``: ``stop`` was set meanwhile.

    Args:
        writer_id: unlike any other's, also of the same process started again (host, pid and something random).
        wait_seconds: ``None`` waits for as long as somebody else is at it, as a standby does.
        heartbeat: ``False`` leaves the calls of ``beat`` to the caller.
        tell: called with what is waited for, each time that this changes; it names the holder.

    Raises:
        RegistryError: somebody else still had it after ``wait_seconds``. UnreachableError: no answer for so long.
    """
    deadline = None if wait_seconds is None else registry.clock.monotonic() + wait_seconds
    said = ""
    while not stop.is_set():
        over = deadline is not None and registry.clock.monotonic() >= deadline
        try:
            epoch = _try(registry, line, writer_id, ttl_seconds)
            holder = registry.pointers.writer(line) if epoch is None else None
        except UnreachableError as error:
            if over:
                raise
            epoch, holder, waits_for = None, None, str(error)
        else:
            waits_for = f"{holder or 'another writer'} has the lease"
        if epoch is not None:
            writer = Writer(registry, line, writer_id, epoch, ttl_seconds)
            if heartbeat:
                writer.start_heartbeat()
            log.info("writing %s with epoch %d", line, epoch)
            return writer
        if over:
            raise RegistryError(
                f"line {line!r} has a writer already ({holder}), still after {wait_seconds:g} s; stop it, or give this "
                "process a line of its own"
            )
        if waits_for != said:
            log.warning("not writing %s yet, waiting: %s", line, waits_for)
            tell(waits_for)
            said = waits_for
        stop.wait(min(1.0, ttl_seconds / 20))
    return None


def _try(registry: Registry, line: str, writer_id: str, ttl_seconds: float) -> int | None:
    newest = registry.newest(line)
    epoch = registry.pointers.acquire(line, writer_id, ttl_seconds, newest.epoch if newest else 0)
    if epoch is not None:
        # Meanwhile versions may have come, and Redis, which knew their epoch, may have been lost.
        newest = registry.newest(line)
        if newest is not None and newest.epoch >= epoch:
            epoch = registry.pointers.acquire(line, writer_id, ttl_seconds, newest.epoch)
    return epoch
