"""What goes wrong in a run, and where: from the seed.

A fault is planned for a place (a kind of process and a point) and strikes there the n-th time that it is passed, so
that rare places are hit as often as busy ones. Some faults strike the world instead, at a time.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from typing import NamedTuple

from tests.simulation.schedule import Task

from lifelong.errors import UnreachableError
from lifelong.stream.memory import Fate

_DISK = (
    "create",
    "write",
    "sync",
    "link",
    "unlink",
    "sync_folder",
    "make_folder",
    "read",
    "names",
)
_WRITER = (
    *(f"disk.{step}" for step in _DISK),
    *(f"pointers.{name}" for name in ("read", "acquire", "renew", "move", "restore", "release")),
    *(f"stream.{name}" for name in ("poll", "send", "flush")),
)
PLACES: dict[str, tuple[str, ...]] = {
    "collector": (
        *(f"stream.{name}" for name in ("poll", "send", "flush", "commit")),
        "seen.first_seen",
        "halves.meet",
        "memory.put",
        "memory.forget",
    ),
    "trainer": (*_WRITER, "step"),
    "distiller": _WRITER,
    "server": (
        "disk.read",
        "pointers.read",
        *(f"stream.{name}" for name in ("poll", "send", "flush", "commit")),
        "outputs.put",
        "engine.load",
        "engine.submit",
    ),
}
"""Where a process touches the world."""
_CAN_FAIL = (
    "stream.poll",
    "stream.flush",
    "stream.commit",
    "disk.",
    "pointers.",
    "seen.",
    "halves.",
    "memory.",
    "outputs.",
)
WORLD = (
    "rebalance",
    "pointers lost",
    "power cut",
    "broker away",
    "redis away",
    "retire",
    "zombie",
    "zombie",
    "lossy",
    "lossy",
)
ZOMBIES = (*["pointers.move"] * 3, "disk.sync", "disk.link", "disk.sync_folder", "stream.flush", "step")
"""Where a trainer is stalled for so long that another takes over, and then goes on."""
FATES: tuple[Fate, ...] = ("twice", "late", "unknown", "lost")


class Place(NamedTuple):
    kind: str
    point: str


class Planned(NamedTuple):
    what: str
    """``crash``, ``stall``, ``hang`` (one thread of it), ``fail``, ``fail after`` (it was done all the same), or what
    becomes of a record that is sent."""
    times: int
    """How often the place is passed before."""


class Faults:
    """Args: num_faults: planned at places."""

    def __init__(self, seed: int, kinds: list[str], num_faults: int) -> None:
        self.random = random.Random(f"faults {seed}")
        self.hits: Counter[tuple[str, str]] = Counter()
        """By (what, place)."""
        self.is_over = False
        self._planned: dict[Place, list[Planned]] = {}
        self._passed: Counter[Place] = Counter()
        for _ in range(num_faults):
            self._plan(kinds)

    def _plan(self, kinds: list[str]) -> None:
        r = self.random
        kind = r.choice(kinds)
        point = r.choice(PLACES[kind])
        choices = ["crash", "crash", "stall", "hang"]
        if point.startswith(_CAN_FAIL):
            choices += ["fail", "fail after"] if point != "stream.poll" else ["fail"]
        if point == "stream.send":
            choices = ["crash", *FATES]
        what = r.choice(choices)
        # Most places are passed a few times only; the busy ones are hit later, too.
        times = r.choice([0, 0, 1, 2, 3, 5, 8, 13, 30]) if point != "stream.poll" else r.randint(0, 60)
        self._planned.setdefault(Place(kind, point), []).append(Planned(what, times))

    def at(self, task: Task, point: str) -> str | None:
        """What strikes here and now, if anything."""
        place = Place(task.process.kind, point)
        planned = self._planned.get(place)
        if planned is None or self.is_over:
            return None
        passed = self._passed[place]
        self._passed[place] += 1
        for fault in planned:
            if fault.times == passed:
                self.hits[fault.what, f"{place.kind} {place.point}"] += 1
                return fault.what
        return None

    def lossy(self, task: Task) -> Fate | None:
        """While the broker is hardly to be reached: what becomes of a record that is sent."""
        fate = self.random.choice((*FATES, None, None))
        if fate is not None:
            self.hits[fate, f"{task.process.kind} stream.send"] += 1
        return fate

    def note(self, what: str) -> None:
        self.hits[what, "world"] += 1


def error_of(point: str) -> Exception:
    """As the real thing would raise it."""
    if point.startswith("disk."):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "simulated")
    return UnreachableError(f"{point}: simulated")
