from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from lifelong.errors import DecodeError
from lifelong.local.child import AlreadyRunningError, Child
from lifelong.local.disk import DiskFullError, check_room, naming_full_disk
from lifelong.local.state import State, exclusive, read_state, write_state


def child(name: str, pid: int = 1) -> Child:
    return Child(name=name, pid=pid, started=12.5, command=("run", name), log=f"/logs/{name}.log")


def test_a_home_without_state_is_a_new_one(tmp_path: Path) -> None:
    assert read_state(tmp_path) == State()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state = State(kafka="127.0.0.1:1", redis="redis://127.0.0.1:2/0", foreign=("kafka",), ports={"http": 3})
    state = state.with_child(child("trainer"))
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert [path.name for path in tmp_path.iterdir()] == ["stack.json"]


def test_a_child_started_again_takes_the_place_of_the_old_one() -> None:
    state = State().with_child(child("a")).with_child(child("b")).with_child(child("a", pid=2))
    assert [(c.name, c.pid) for c in state.children] == [("b", 1), ("a", 2)]
    assert [c.name for c in state.without("b").children] == ["a"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"ports": 3}', b'{"unknown": 1}', b"\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stack.json").write_bytes(content)
    with pytest.raises(DecodeError, match=r"stack\.json is damaged.*remove the file"):
        read_state(tmp_path)


def test_one_at_a_time_also_between_programs(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from lifelong.local.state import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(AlreadyRunningError, match=f"process {other.pid} is starting or stopping"):
            exclusive(tmp_path).__enter__()
        other.stdin.close()
        other.wait()
        with exclusive(tmp_path):
            pass


def test_a_full_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DiskFullError, match="make room, or use a home on another disk"), naming_full_disk(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), naming_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "no")
    check_room(tmp_path)
    monkeypatch.setattr("lifelong.local.disk.MIN_FREE_BYTES", 2**62)
    with pytest.raises(DiskFullError, match=r"the disk is nearly full: .* MiB are free"):
        check_room(tmp_path)
