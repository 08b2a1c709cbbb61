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
from typing import NoReturn

import msgspec
import psutil

from lifelong.errors import LifelongError

_POLL_SECONDS = 0.05
# The kernel gives a start in ticks since boot, and the time of boot is corrected while the clock is.
_CLOCK_SLACK_SECONDS = 2.0
# A trainer finishes its step, a broker closes its logs.
_SHUTDOWN_SECONDS = 30.0
_SHOWN_LINES = 20
_END_BYTES = 32 * 1024
_MAX_LOG_BYTES = 16 * 1024 * 1024


Diagnose = Callable[[str], str | None]
"""Given the end of a log, says what to do about it, if it knows."""


def _no_idea(end: str) -> str | None:
    return None


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
    held = _take(name, lock)
    try:
        _rotate(log)
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
        try:
            os.ftruncate(held, 0)
            os.pwrite(held, f"{process.pid}\n".encode(), 0)
        except OSError:
            process.kill()
            process.wait()
            raise
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


def _take(name: str, lock: Path) -> int:
    """The file descriptor that holds the lock, until it and all copies of it are closed."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.read(held, 20).decode().strip() or "?"
        os.close(held)
        raise AlreadyRunningError(
            f"{name} already runs here as process {pid} (it holds {lock}): stop it with `lifelong down` or "
            f"`kill {pid}`, or use another home"
        ) from error
    return held


def check_free(name: str, lock: Path) -> None:
    """Before touching what a running process may be using.

    Raises:
        AlreadyRunningError: somebody holds the lock.
    """
    if lock.exists():
        os.close(_take(name, lock))


def _rotate(log: Path) -> None:
    """Between two lives, so that a log is bounded by what one life writes."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _MAX_LOG_BYTES:
            log.replace(log.with_suffix(".old.log"))


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
    diagnose: Diagnose = _no_idea,
) -> None:
    """Blocks until ``ready``, which may raise what it likes.

    Raises:
        ChildFailedError: the process ended, or the time did.
    """
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        check_running(child, diagnose)
        if time.monotonic() > deadline:
            _fail(child, f"was not ready after {timeout_seconds:.0f} s", diagnose)
        time.sleep(_POLL_SECONDS)


def check_running(child: Child, diagnose: Diagnose = _no_idea) -> None:
    """Raises:
    ChildFailedError: the process ended.
    """
    if not is_running(child):
        code = exit_code(child)
        _fail(child, "ended" if code is None else f"ended with code {code}", diagnose)


def _fail(child: Child, what: str, diagnose: Diagnose) -> NoReturn:
    text = _end_of(Path(child.log))
    mend = diagnose(text)
    raise ChildFailedError(
        f"{child.name} {what}." + (f" {mend}" if mend else "") + f" The end of {child.log}:\n{last_lines(text)}"
    )


def _end_of(log: Path) -> str:
    """What fits in memory of what may be gigabytes."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-_SHOWN_LINES:]) or "(nothing)"


def stop(child: Child) -> None:
    """TERM, and KILL if that is not enough; returns when the process is gone. Never touches another one."""
    stop_all((child,))


def stop_all(children: Sequence[Child], *, timeout_seconds: float = _SHUTDOWN_SECONDS) -> tuple[str, ...]:
    """All at once, within one ``timeout_seconds``; the names of those that had to be killed."""
    deadline = time.monotonic() + timeout_seconds
    left = _signal(children, signal.SIGTERM)
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        left = [child for child in left if is_running(child)]
    killed = tuple(child.name for child in left)
    left = _signal(left, signal.SIGKILL)
    while left:
        time.sleep(_POLL_SECONDS)
        left = [child for child in left if is_running(child)]
    for child in children:
        _own.pop(child.pid, None)
    return killed


def _signal(children: Sequence[Child], number: int) -> list[Child]:
    """Those that it reached."""
    reached = []
    for child in children:
        process = _find(child)
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if number == signal.SIGKILL:
                    # With whatever it has started itself, which nobody else would end.
                    os.killpg(child.pid, number)
                else:
                    process.send_signal(number)
                reached.append(child)
    return reached
