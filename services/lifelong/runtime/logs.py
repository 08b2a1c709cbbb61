"""Logging to standard error, as text for people or as JSON lines for collectors."""

from __future__ import annotations

import logging
import sys

import msgspec

from lifelong.config.shared import LogSettings


class _JsonFormatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": record.created,
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def set_up_logging(process: str, settings: LogSettings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(_JsonFormatter(process))
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s {process} %(levelname)s %(message)s"))
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
    # The client logs every reconnect of every connection at INFO.
    logging.getLogger("kafka").setLevel(logging.WARNING)
    # … and warns of every moment in which a busy machine did not let it run.
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)
    for chatty in ("httpx", "ContinuousBatchingLogger"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
