"""The four processes as the embedded stack runs them, and how they share the machine."""

from __future__ import annotations

import os
import sys

import msgspec


class Process(msgspec.Struct, frozen=True):
    name: str
    command: tuple[str, ...]
    nice: int = 0
    http: bool = False
    """Serves the applications, and its metrics, health and readiness on the same port."""


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"lifelong.{name}")


PROCESSES = (
    Process("collector", _module("collector")),
    Process("trainer", _module("trainer")),
    Process("inference", _module("inference"), http=True),
    # Nobody waits for the student: it learns from what the others leave over. With this niceness it gets a tenth of a
    # core that somebody else wants, and all of one that nobody wants.
    Process("distiller", _module("distiller"), nice=10),
)


def cores() -> int:
    """That this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_budget(name: str, cores: int) -> int:
    """Threads for the numerics of a process. More threads than cores cost more than they bring: copying an adapter
    took 365 ms instead of 1 ms.

    Trainer, inference and distiller share the cores; with one or two, the distiller has its thread from what its
    niceness leaves it. The collector spends next to nothing on arithmetic.
    """
    shared = max(2, cores - 1)
    return {"trainer": (shared + 1) // 2, "inference": shared // 2}.get(name, 1)
