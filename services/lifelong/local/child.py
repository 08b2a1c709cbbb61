"""Detached processes that are certainly ours: started, recognised later by another run, and ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from lifelong.errors import LifelongError

_POLL_SECONDS = 0.05
# The kernel gives a start in ticks since boot, and the time of boot is corrected while the clock is.
_CLOCK_SLACK_SECONDS = 2.0
_SHUTDOWN_SECONDS = 20.0
_TAIL_LINES = 20


class ChildFailedError(LifelongError):
    """A process of the stack ended or did not get ready; shows the end of its log."""


class AlreadyRunningError(LifelongError):
    """Another process works on the same data; names it and what to do."""


class Child(msgspec.Struct, frozen=True):
    """A process id alone means nothing once the process has ended: the kernel gives it away again."""

    name: str
    pid: int
    started: float
    """Seconds since 1970, by the kernel."""
    command: tuple[str, ...]
    log: str


# Children of this very interpreter, whose exit codes we can learn and who would stay behind as zombies otherwise.
_own: dict[int, subprocess.Popen[bytes]] = {}


def spawn(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    lock: Path,
    env: Mapping[str, str] | None = None,
    nice: int = 0,
) -> Child:
    """Start a process in a session of its own, so that Ctrl-C in a terminal reaches only who was asked.

    The child inherits an exclusive lock on ``lock`` and so holds it until it is gone, however it ends and whatever
    became of our notes: two servers never write to the same data.

    Raises:
        AlreadyRunningError: somebody holds the lock.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(held, 20).decode().strip() or "?"
            raise AlreadyRunningError(
                f"{name} already runs here as process {pid} (it holds {lock}): stop it with `lifelong down` or "
                f"`kill {pid}`, or use another home"
            ) from error
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=dict(env) if env is not None else None,
                pass_fds=(held,),
            )
        os.ftruncate(held, 0)
        os.pwrite(held, f"{process.pid}\n".encode(), 0)
    finally:
        os.close(held)
    _own[process.pid] = process
    started = 0.0
    # It may have ended already; waiting for it to be ready will tell.
    with contextlib.suppress(psutil.NoSuchProcess):
        seen = psutil.Process(process.pid)
        started = seen.create_time()
        if nice:
            seen.nice(nice)
    return Child(name=name, pid=process.pid, started=started, command=tuple(command), log=str(log))


def is_running(child: Child) -> bool:
    return _find(child) is not None


def exit_code(child: Child) -> int | None:
    """Minus the signal if a signal ended it. ``None``: it runs, or only its parent could know."""
    process = _own.get(child.pid)
    return process.poll() if process else None


def _find(child: Child) -> psutil.Process | None:
    own = _own.get(child.pid)
    try:
        if own is not None:
            # Its id is ours until we have fetched its exit code. The command line is not there yet right after exec.
            return psutil.Process(child.pid) if own.poll() is None else None
        process = psutil.Process(child.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        same_start = abs(process.create_time() - child.started) <= _CLOCK_SLACK_SECONDS
        return process if same_start and tuple(process.cmdline()) == child.command else None
    # A process of another user is none of ours.
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def wait_until(
    child: Child,
    ready: Callable[[], bool],
    *,
    timeout_seconds: float,
    diagnose: Callable[[str], str | None] = lambda tail: None,
) -> None:
    """Blocks until ``ready``.

    ``diagnose`` is given the end of the log and says what to do about it, if it knows.

    Raises:
        ChildFailedError: the process ended, or the time did.
    """
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        if not is_running(child):
            code = exit_code(child)
            _fail(child, "ended" if code is None else f"ended with code {code}", diagnose)
        if time.monotonic() > deadline:
            _fail(child, f"was not ready after {timeout_seconds:.0f} s", diagnose)
        time.sleep(_POLL_SECONDS)


def _fail(child: Child, what: str, diagnose: Callable[[str], str | None]) -> None:
    end = tail(Path(child.log))
    mend = diagnose(end)
    raise ChildFailedError(f"{child.name} {what}." + (f" {mend}" if mend else "") + f" The end of {child.log}:\n{end}")


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last lines of a log, without reading what may be gigabytes before them."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 400 * lines))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


def stop(child: Child, *, timeout_seconds: float = _SHUTDOWN_SECONDS) -> None:
    """TERM, and KILL if that is not enough; returns when the process is gone. Never touches another one."""
    for number, seconds in ((signal.SIGTERM, timeout_seconds), (signal.SIGKILL, None)):
        process = _find(child)
        if process is None:
            break
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        if _wait_gone(child, seconds):
            break
    _own.pop(child.pid, None)


def _wait_gone(child: Child, timeout_seconds: float | None) -> bool:
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while _find(child) is not None:
        if deadline is not None and time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
