"""What a home remembers between two commands: ``stack.json``, and who is at work on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lifelong.errors import ConfigError, DecodeError
from lifelong.local.child import AlreadyRunningError, Child


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kafka: str = ""
    """Bootstrap servers that the processes were given."""
    redis: str = ""
    foreign: tuple[str, ...] = ()
    """Which of the two are not ours to start and stop."""
    ports: dict[str, int] = {}
    """By name, also while nothing runs: what clients were told should stay true after ``down`` and ``up``."""
    children: tuple[Child, ...] = ()
    """In the order in which they were started."""

    def child(self, name: str) -> Child | None:
        return next((child for child in self.children if child.name == name), None)

    def with_child(self, child: Child) -> State:
        others = tuple(other for other in self.children if other.name != child.name)
        return msgspec.structs.replace(self, children=(*others, child))

    def without(self, *names: str) -> State:
        return msgspec.structs.replace(
            self, children=tuple(child for child in self.children if child.name not in names)
        )


def read_state(home: Path) -> State:
    """Raises:
    DecodeError: the file is not ours, or was damaged.
    """
    path = home / "stack.json"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return State()
    try:
        return msgspec.json.decode(data, type=State)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(
            "bad-state", f"{path} is damaged ({error}): end what still runs by hand, then remove the file", data
        ) from error


def write_state(home: Path, state: State) -> None:
    """All of it or nothing, also if the machine goes down meanwhile."""
    path = home / "stack.json"
    fresh = path.with_suffix(".json.new")
    with fresh.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


@contextlib.contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """One ``up`` or ``down`` at a time.

    Raises:
        AlreadyRunningError: at once, there is another.
        ConfigError: the home cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        held = os.open(home / "stack.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError as error:
        raise ConfigError("home", f"{home} cannot be written: choose another (--home)") from error
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(held, 20).decode().strip() or "?"
            raise AlreadyRunningError(
                f"process {pid} is starting or stopping the stack in {home} right now: wait for it, or use another home"
            ) from error
        os.ftruncate(held, 0)
        os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(held)
