"""Trying again while a server is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from lifelong.errors import LifelongError
from lifelong.runtime.health import Health

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_SECONDS = 0.1


class Stopped(Exception):
    """We were told to stop before it worked."""


class Patience:
    """``health`` says that something is wrong for as long as it is."""

    def __init__(self, health: Health, max_seconds: float) -> None:
        self._health = health
        self._max_seconds = max_seconds

    def insist(self, action: Callable[[], T], stop: threading.Event) -> T:
        """The result of ``action``, called again, with growing pauses, while it raises retriable errors.

        Raises:
            Stopped: ``stop`` was set while waiting.
        """
        pause = _FIRST_SECONDS
        while True:
            try:
                result = action()
            except LifelongError as error:
                if not error.retriable:
                    raise
                self._health.failure = str(error)
                log.warning("%s; again in %.1f s", error, min(pause, self._max_seconds))
                if stop.wait(min(pause, self._max_seconds)):
                    raise Stopped from error
                pause *= 2
            else:
                self._health.failure = None
                return result
