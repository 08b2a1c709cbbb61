"""The life of a process: settings, wiring, work until told to stop, and an exit code that means something."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from lifelong.config.loading import load
from lifelong.config.shared import LogSettings
from lifelong.errors import ConfigError, LifelongError, MissingPartError
from lifelong.runtime.logs import set_up_logging

log = logging.getLogger(__name__)

S = TypeVar("S", bound=msgspec.Struct)

EXIT_FAILED = 1
EXIT_BAD_SETTINGS = 2


class App(Protocol):
    """A wired process. ``run`` returns soon after ``stop`` is set; ``close`` is called on every path, once."""

    def run(self, stop: threading.Event) -> None: ...

    def close(self) -> None: ...


def main(process: str, settings_type: type[S], build: Callable[[S], App]) -> None:
    """Load the settings, build the app, run it until SIGTERM or SIGINT. Ends the interpreter.

    Exit codes: 0 stopped when told; 1 failed (a supervisor should start it again); 2 bad settings or a missing part
    (starting it again will not help).
    """
    set_up_logging(process, LogSettings())
    try:
        settings = load(settings_type)
        set_up_logging(process, getattr(settings, "log", LogSettings()))
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        app = build(settings)
        try:
            log.info("started")
            app.run(stop)
        finally:
            app.close()
    except (ConfigError, MissingPartError) as error:
        log.error("%s", error)
        sys.exit(EXIT_BAD_SETTINGS)
    except LifelongError as error:
        log.error("%s: %s", type(error).__name__, error)
        sys.exit(EXIT_FAILED)
    except Exception:
        log.exception("failed")
        sys.exit(EXIT_FAILED)
    log.info("stopped")
