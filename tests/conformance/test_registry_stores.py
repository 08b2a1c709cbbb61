"""What every artifact store must do, whatever it keeps its bytes in."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import msgspec
import pytest
from tests.conformance.versions import manifest

from lifelong.config.shared import ArtifactSettings
from lifelong.contracts.versions import FileEntry, Manifest
from lifelong.errors import CorruptVersionError, FencedError, UnknownVersionError
from lifelong.registry.artifacts import InMemoryStore, open_store
from lifelong.registry.base import ArtifactStore
from lifelong.registry.layout import new_folder

LINE = "lifelong"


@pytest.fixture(params=["directory", "object", "in-memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "directory":
        return open_store(ArtifactSettings(url=str(tmp_path / "deep" / "artifacts")))
    if request.param == "object":
        return open_store(ArtifactSettings(url=f"memory://{uuid.uuid4().hex}/artifacts"))
    return InMemoryStore()


def committed(store: ArtifactStore, number: int, files: dict[str, bytes], *, epoch: int = 1) -> Manifest:
    folder = new_folder(LINE, number, epoch)
    whole = msgspec.structs.replace(manifest(LINE, number, epoch=epoch), folder=folder, files=store.put(folder, files))
    store.commit(whole)
    return whole


def test_an_empty_store_has_nothing(store: ArtifactStore) -> None:
    assert store.lines() == []
    assert store.numbers(LINE) == []
    assert store.folders(LINE) == []
    with pytest.raises(UnknownVersionError, match="lifelong@1"):
        store.manifest(LINE, 1)


def test_what_was_committed_is_read_back(store: ArtifactStore) -> None:
    whole = committed(store, 1, {"adapter.safetensors": b"weights", "replay.bin": b""})
    assert store.manifest(LINE, 1) == whole
    assert store.get(whole.folder, "adapter.safetensors", whole.files["adapter.safetensors"]) == b"weights"
    assert store.get(whole.folder, "replay.bin", whole.files["replay.bin"]) == b""
    assert whole.files["adapter.safetensors"].num_bytes == 7


def test_to_secure_what_is_there_changes_nothing(store: ArtifactStore) -> None:
    store.secure("lifelong")
    assert (store.lines(), store.numbers("lifelong")) == ([], [])
    made = committed(store, 1, {"a.bin": b"1"})
    store.secure("lifelong")
    assert store.manifest("lifelong", 1) == made


def test_numbers_are_in_order_and_lines_apart(store: ArtifactStore) -> None:
    for number in (2, 100_000_000, 10, 1):
        committed(store, number, {"x": b"x"})
    store.commit(manifest("lifelong-student", 1))
    assert store.numbers(LINE) == [1, 2, 10, 100_000_000]
    assert store.numbers("lifelong-student") == [1]
    assert store.lines() == ["lifelong", "lifelong-student"]


def test_files_without_a_manifest_are_no_version(store: ArtifactStore) -> None:
    folder = new_folder(LINE, 1, 1)
    store.put(folder, {"adapter.safetensors": b"weights"})
    assert store.numbers(LINE) == []
    assert LINE not in store.lines()
    assert store.folders(LINE) == [folder]


def test_a_number_is_given_once(store: ArtifactStore) -> None:
    first = committed(store, 1, {"x": b"one"}, epoch=1)
    with pytest.raises(FencedError, match="lifelong@1"):
        committed(store, 1, {"x": b"two"}, epoch=2)
    assert store.manifest(LINE, 1) == first
    assert store.get(first.folder, "x", first.files["x"]) == b"one"


def test_the_same_commit_again_is_no_conflict(store: ArtifactStore) -> None:
    """The answer to a commit may be lost on the way, and then it is tried again."""
    whole = committed(store, 1, {"x": b"one"})
    store.commit(whole)
    assert store.numbers(LINE) == [1]


# The memory of fsspec looks first and creates then, in two steps, which no real object store does.
@pytest.mark.parametrize("store", ["directory", "in-memory"], indirect=True)
def test_of_many_writers_one_wins(store: ArtifactStore) -> None:
    winners: list[int] = []
    losers: list[int] = []
    start = threading.Barrier(8)

    def write(epoch: int) -> None:
        start.wait()
        try:
            committed(store, 1, {"x": b"%d" % epoch}, epoch=epoch)
            winners.append(epoch)
        except FencedError:
            losers.append(epoch)

    threads = [threading.Thread(target=write, args=(epoch,)) for epoch in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert len(losers) == 7
    assert store.manifest(LINE, 1).epoch == winners[0]


def test_wrong_bytes_are_not_given_out(store: ArtifactStore) -> None:
    whole = committed(store, 1, {"x": b"weights"})
    with pytest.raises(CorruptVersionError, match="sha256"):
        store.get(whole.folder, "x", FileEntry("0" * 64, 7))
    with pytest.raises(CorruptVersionError, match="bytes"):
        store.get(whole.folder, "x", FileEntry(whole.files["x"].sha256, 8))
    with pytest.raises(CorruptVersionError, match="missing"):
        store.get(whole.folder, "y", whole.files["x"])


def test_a_dropped_folder_is_gone_and_its_manifest_stays(store: ArtifactStore) -> None:
    one, two = committed(store, 1, {"x": b"one"}), committed(store, 2, {"x": b"two"})
    store.drop(one.folder)
    store.drop(one.folder)
    assert store.folders(LINE) == [two.folder]
    assert store.numbers(LINE) == [1, 2]
    assert store.manifest(LINE, 1) == one
    with pytest.raises(CorruptVersionError, match="keep_versions"):
        store.get(one.folder, "x", one.files["x"])
    assert store.get(two.folder, "x", two.files["x"]) == b"two"


@pytest.mark.parametrize("name", ["../etc", "..", ".", "", "a/b", "A", "lifelong/../x", "x" * 65])
def test_a_name_cannot_lead_elsewhere(store: ArtifactStore, name: str) -> None:
    """Names of lines come from requests."""
    with pytest.raises(UnknownVersionError):
        store.manifest(name, 1)


@pytest.mark.parametrize("folder", ["../../etc", "/etc", "lifelong/folders/..", "lifelong/manifests"])
def test_a_manifest_cannot_lead_elsewhere(store: ArtifactStore, folder: str) -> None:
    with pytest.raises(CorruptVersionError):
        store.get(folder, "passwd", FileEntry("0" * 64, 1))
    with pytest.raises(CorruptVersionError):
        store.drop(folder)
    with pytest.raises(CorruptVersionError):
        store.get(new_folder(LINE, 1, 1), "../passwd", FileEntry("0" * 64, 1))
