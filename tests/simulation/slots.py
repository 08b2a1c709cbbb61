"""What a supervisor knows of the processes of a run, and the pointers that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tests.simulation import parts
from tests.simulation.faults import Faults
from tests.simulation.schedule import Event, Process

from lifelong.errors import FencedError, RegistryError, UnreachableError
from lifelong.registry.local import LocalPointers
from lifelong.runtime.clock import Clock

_STREAM = frozenset(f"stream.{name}" for name in ("poll", "flush", "commit"))
_REDIS = frozenset(
    {f"pointers.{name}" for name in ("read", "acquire", "renew", "move", "restore", "release", "reclaim")}
    | {"seen.first_seen", "halves.meet", "memory.put", "memory.forget", "outputs.put"}
)
AWAY = {"broker away": _STREAM, "redis away": _REDIS}


class App(Protocol):
    def run(self, stop: Any) -> None: ...

    def close(self) -> None: ...


class Slot:
    """One process that is always to run, and what there is of it now."""

    def __init__(self, kind: str, index: int) -> None:
        self.kind = kind
        self.name = f"{kind}{index}"
        self.num_starts = 0
        self.process: Process | None = None
        self.stop: Event | None = None
        self.app: Any = None
        self.sources: list[parts.Source] = []
        self.sinks: list[parts.Sink] = []


class Pointers(LocalPointers):
    """Tells the world of every move."""

    def __init__(self, clock: Clock, on_move: Callable[[str], None]) -> None:
        super().__init__(clock)
        self._on_move = on_move

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("acquire", "move", "set_live", "restore", "reclaim"):
            return found

        def call(line: str, *args: Any, **kwargs: Any) -> Any:
            result = found(line, *args, **kwargs)
            self._on_move(line)
            return result

        return call

    def lose(self) -> None:
        self._lines.clear()


def is_expected(error: BaseException, faults: Faults) -> bool:
    """Whether a process may end so; a supervisor starts it again."""
    if isinstance(error, FencedError | UnreachableError):
        return True
    if type(error) is not RegistryError:
        return False
    disk_failed = any(what.startswith("fail") and " disk." in place for what, place in faults.hits)
    # A successor has cleared away what this one was still writing.
    is_cleared = isinstance(error.__cause__, FileNotFoundError)
    # Between two looks at the pointers.
    is_lost = "nothing is known of line" in str(error) and ("pointers lost", "world") in faults.hits
    return disk_failed or is_cleared or is_lost
