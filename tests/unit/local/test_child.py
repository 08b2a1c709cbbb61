from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from lifelong.local import child as children
from lifelong.local.child import (
    AlreadyRunningError,
    Child,
    ChildFailedError,
    check_free,
    exit_code,
    is_running,
    spawn,
    stop,
    stop_all,
    wait_until,
)

# Says that it is up only once the handler is in place, so that a signal never comes too early.
_POLITE = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(3))\nprint('up', flush=True)\nsignal.pause()"
_STUBBORN = (
    "import signal, subprocess, sys\nsignal.signal(15, signal.SIG_IGN)\n"
    "own = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
    "print('up', own.pid, flush=True)\nsignal.pause()"
)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Child]]:
    all_started: list[Child] = []
    yield all_started
    stop_all(all_started, timeout_seconds=0)


def start(tmp_path: Path, started: list[Child], program: str, name: str = "it", nice: int = 0) -> Child:
    log = tmp_path / f"{name}.log"
    child = spawn(name, (sys.executable, "-c", program), log=log, lock=tmp_path / f"{name}.lock", nice=nice)
    started.append(child)
    return child


def up(child: Child) -> bool:
    return "up" in Path(child.log).read_text()


def forget_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another program would see the child."""
    monkeypatch.setattr(children, "_own", {})


def test_starts_and_stops(tmp_path: Path, started: list[Child]) -> None:
    child = start(tmp_path, started, _POLITE, nice=7)
    wait_until(child, lambda: up(child), timeout_seconds=60)
    assert is_running(child)
    assert exit_code(child) is None
    assert psutil.Process(child.pid).nice() == 7
    assert os.getsid(child.pid) != os.getsid(0)
    stop(child)
    assert not is_running(child)
    assert not psutil.pid_exists(child.pid)


def test_stopping_is_as_polite_as_it_can_be(tmp_path: Path, started: list[Child]) -> None:
    polite = start(tmp_path, started, _POLITE, name="polite")
    stubborn = start(tmp_path, started, _STUBBORN, name="stubborn")
    for child in (polite, stubborn):
        wait_until(child, lambda child=child: up(child), timeout_seconds=60)
    grandchild = psutil.Process(int(Path(stubborn.log).read_text().split()[1]))
    assert stop_all((polite, stubborn), timeout_seconds=5) == ("stubborn",)
    assert not is_running(polite)
    assert not is_running(stubborn)
    # Killed, but whoever adopts it may take a moment to collect it.
    psutil.wait_procs([grandchild], timeout=60)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_recognised_by_another_program(tmp_path: Path, started: list[Child], monkeypatch: pytest.MonkeyPatch) -> None:
    child = start(tmp_path, started, _POLITE)
    wait_until(child, lambda: up(child), timeout_seconds=60)
    own = dict(children._own)
    forget_parent(monkeypatch)
    assert is_running(child)
    assert exit_code(child) is None
    stop(child)
    assert not is_running(child)
    assert own[child.pid].wait() == 3


def test_another_process_with_the_same_id_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_parent(monkeypatch)
    me = psutil.Process()
    sent: list[int] = []
    monkeypatch.setattr(psutil.Process, "send_signal", lambda self, number: sent.append(number))
    mine = Child(name="it", pid=me.pid, started=me.create_time(), command=tuple(me.cmdline()), log="")
    assert is_running(mine)
    for other in (
        msgspec.structs.replace(mine, started=mine.started - 60),
        msgspec.structs.replace(mine, command=("java", "kafka.Kafka")),
        msgspec.structs.replace(mine, pid=2**22 + 1),
    ):
        assert not is_running(other)
        stop(other)
    assert sent == []


def test_the_lock_lives_as_long_as_the_child(
    tmp_path: Path, started: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start(tmp_path, started, _POLITE)
    wait_until(child, lambda: up(child), timeout_seconds=60)
    with pytest.raises(AlreadyRunningError, match=f"it already runs here as process {child.pid}.*kill {child.pid}"):
        start(tmp_path, started, _POLITE)
    with pytest.raises(AlreadyRunningError):
        check_free("it", tmp_path / "it.lock")
    os.kill(child.pid, signal.SIGKILL)
    stop(child)
    check_free("it", tmp_path / "it.lock")
    again = start(tmp_path, started, _POLITE)
    assert again.pid != child.pid


def test_one_that_dies_shows_the_end_of_its_log(tmp_path: Path, started: list[Child]) -> None:
    program = "import sys\nfor i in range(100): print('line', i, flush=True)\nsys.exit('the reason')"
    child = start(tmp_path, started, program)

    def diagnose(log: str) -> str:
        assert "line 1\n" in log
        return "Do this."

    with pytest.raises(ChildFailedError) as failed:
        wait_until(child, lambda: False, timeout_seconds=60, diagnose=diagnose)
    message = str(failed.value)
    assert message.startswith("it ended with code 1. Do this. The end of ")
    assert message.endswith("line 99\nthe reason")
    assert "line 50\n" not in message


def test_one_that_is_never_ready_is_given_up(tmp_path: Path, started: list[Child]) -> None:
    child = start(tmp_path, started, _POLITE)
    with pytest.raises(ChildFailedError, match="it was not ready after 0 s"):
        wait_until(child, lambda: False, timeout_seconds=0)


def test_a_long_log_is_put_aside(tmp_path: Path, started: list[Child], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_MAX_LOG_BYTES", 10)
    (tmp_path / "it.log").write_text("of an earlier life")
    child = start(tmp_path, started, _POLITE)
    wait_until(child, lambda: up(child), timeout_seconds=60)
    assert (tmp_path / "it.old.log").read_text() == "of an earlier life"
    assert (tmp_path / "it.log").read_text() == "up\n"
