"""What a directory must survive: a death at any moment, a full disk, somebody else's files."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.conformance.versions import manifest

from lifelong.errors import CorruptVersionError, MissingPartError, RegistryError
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.disk import RealDisk
from lifelong.registry.layout import folder_number, new_folder
from lifelong.registry.pointers import LocalPointers
from lifelong.registry.registry import Registry
from lifelong.runtime.clock import ManualClock

# Writes version 2 and dies without warning at the step numbered argv[2], of those that change something on the disk.
_DIES = """
import os, signal, sys
from pathlib import Path

import msgspec

from lifelong.contracts.versions import Manifest
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.disk import RealDisk
from lifelong.registry.layout import new_folder

left = int(sys.argv[2])

def dying(function):
    def step(*args, **kwargs):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*args, **kwargs)
    return step

for name in ("fsync", "link", "mkdir", "unlink"):
    setattr(os, name, dying(getattr(os, name)))
store = DirectoryStore(Path(sys.argv[1]))
whole = msgspec.json.decode(sys.stdin.buffer.read(), type=Manifest)
folder = new_folder("lifelong", 2, 1)
files = store.put(folder, {"adapter.safetensors": b"w" * 100_000, "optimizer.safetensors": b"o" * 1000})
store.commit(msgspec.structs.replace(whole, folder=folder, files=files))
"""


def put_and_commit(store: DirectoryStore, number: int, data: bytes = b"weights") -> None:
    folder = new_folder("lifelong", number, 1)
    files = store.put(folder, {"adapter.safetensors": data})
    store.commit(msgspec.structs.replace(manifest("lifelong", number), folder=folder, files=files))


def test_whoever_is_killed_leaves_a_whole_version_or_none(tmp_path: Path) -> None:
    outcomes = []
    for step in range(100):
        root = tmp_path / str(step)
        store = DirectoryStore(root)
        put_and_commit(store, 1)
        ended = subprocess.run(
            [sys.executable, "-c", _DIES, str(root), str(step)],
            input=msgspec.json.encode(manifest("lifelong", 2)),
            check=False,
        )
        numbers = store.numbers("lifelong")
        outcomes.append(numbers)
        for number in numbers:
            whole = store.manifest("lifelong", number)
            for name, entry in whole.files.items():
                store.get(whole.folder, name, entry)
        if numbers == [1]:
            # The successor is not in the way of what was left behind.
            put_and_commit(store, 2, b"of the successor")
            assert store.numbers("lifelong") == [1, 2]
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
    assert ended.returncode == 0
    assert outcomes[0] == [1]
    assert outcomes[-1] == [1, 2]
    # Once a version is there, it does not go away at a later step.
    assert outcomes == sorted(outcomes)
    # folder, two files, folder twice, manifest; link, unlink, folder.
    assert len(outcomes) >= 9


@pytest.mark.parametrize("number_of_sync", range(4))
def test_a_full_disk_leaves_no_half_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number_of_sync: int
) -> None:
    store = DirectoryStore(tmp_path)
    put_and_commit(store, 1)
    before = sorted(tmp_path.rglob("*"))
    real, left = os.fsync, [number_of_sync]

    def full(descriptor: int) -> None:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RegistryError, match=r"disk is full.*keep_versions"):
        put_and_commit(store, 2)
    monkeypatch.undo()
    if number_of_sync < 3:
        assert sorted(tmp_path.rglob("*")) == before
    # By then the files are whole and stay for prune; there is neither manifest nor scratch file.
    assert sorted((tmp_path / "lifelong" / "manifests").iterdir()) == [tmp_path / "lifelong/manifests/00000001.json"]
    put_and_commit(store, 2)
    assert store.numbers("lifelong") == [1, 2]


def test_foreign_files_are_not_versions(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    put_and_commit(store, 1)
    manifests = tmp_path / "lifelong" / "manifests"
    for name in (".00000002.json.1a2b3c4d", "2.json", "00000002.json~", "notes.txt", "00000002.json.bak"):
        (manifests / name).write_bytes(b"{}")
    (tmp_path / "lifelong" / "folders" / "backup").mkdir()
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "README").write_text("hello")
    assert store.numbers("lifelong") == [1]
    assert len(store.folders("lifelong")) == 1
    assert store.lines() == ["lifelong"]


def test_a_torn_manifest_is_named(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    put_and_commit(store, 1)
    path = tmp_path / "lifelong" / "manifests" / "00000001.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptVersionError, match=r"00000001\.json"):
        store.manifest("lifelong", 1)
    path.with_name("00000002.json").write_bytes(whole)
    with pytest.raises(CorruptVersionError, match="lifelong@1"):
        store.manifest("lifelong", 2)


def test_a_torn_manifest_does_not_stop_clearing_up(tmp_path: Path) -> None:
    store, clock = DirectoryStore(tmp_path), ManualClock()
    registry = Registry(store, LocalPointers(clock), clock)
    for number in (1, 2, 3, 4):
        put_and_commit(store, number)
    (tmp_path / "lifelong" / "manifests" / "00000003.json").write_bytes(b"{")
    (dropped,) = registry.prune("lifelong", 2)
    assert folder_number(dropped) == 1
    # Its manifest may be restored.
    assert [folder_number(folder) for folder in store.folders("lifelong")] == [2, 3, 4]


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    put_and_commit(store, 1)
    whole = store.manifest("lifelong", 1)
    path = tmp_path / whole.folder / "adapter.safetensors"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptVersionError, match="sha256"):
        store.get(whole.folder, "adapter.safetensors", whole.files["adapter.safetensors"])


def test_a_file_system_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", str(source), None, str(target))

    monkeypatch.setattr(os, "link", no_link)
    store = DirectoryStore(tmp_path)
    with pytest.raises(MissingPartError, match=r"hard links.*artifacts\.url"):
        put_and_commit(store, 1)
    assert store.numbers("lifelong") == []


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RegistryError, match=r"artifacts\.url"):
        put_and_commit(DirectoryStore(tmp_path / "file" / "artifacts"), 1)


class Watched(RealDisk):
    """Keeps what was made and what was synced since."""

    def __init__(self) -> None:
        self.unsynced: set[Path] = set()

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self.unsynced.add(path)

    def link(self, path: Path, new_path: Path) -> None:
        super().link(path, new_path)
        self.unsynced.add(new_path)

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.unsynced = {made for made in self.unsynced if made.parent != path}


class Dying(Watched):
    """Its process dies when it first syncs this folder."""

    def __init__(self, at: Path) -> None:
        super().__init__()
        self._at = at

    def sync_folder(self, path: Path) -> None:
        if path == self._at:
            raise KeyboardInterrupt
        super().sync_folder(path)


@pytest.mark.parametrize("at", [".", "store", "store/lifelong", "store/lifelong/manifests"])
def test_what_a_dead_process_left_unsynced_is_synced_by_the_next(tmp_path: Path, at: str) -> None:
    root = tmp_path / "store"
    first, second = Dying(tmp_path / at), Watched()
    with pytest.raises(KeyboardInterrupt):
        put_and_commit(DirectoryStore(root, first), 1)
    assert first.unsynced
    store = DirectoryStore(root, second)
    second.unsynced = set(first.unsynced)
    if store.numbers("lifelong") == [1]:
        store.secure("lifelong")
    else:
        put_and_commit(store, 1)
    assert second.unsynced == set()
