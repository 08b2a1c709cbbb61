"""What an object store can do to us, on a file system of fsspec that does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from tests.conformance.versions import manifest

from lifelong.config.shared import ArtifactSettings
from lifelong.errors import ConfigError, MissingPartError, RegistryError, UnreachableError
from lifelong.registry.artifacts import DirectoryStore, ObjectStore, open_store
from lifelong.registry.layout import new_folder


class Filesystem(MemoryFileSystem):
    """With a memory of its own, which fails when told."""

    cachable = False
    fails_at: int | None = None
    error: BaseException = OSError("connection reset")

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]
        self.num_written = 0

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if self.num_written == self.fails_at:
            raise self.error
        self.num_written += 1
        super().pipe_file(path, value, mode=mode, **kwargs)


class Overwriting(Filesystem):
    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value, **kwargs)


class Unaware(Filesystem):
    def pipe_file(self, path: str, value: bytes) -> None:
        super().pipe_file(path, value)


class Unwilling(Filesystem):
    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if mode == "create":
            raise NotImplementedError("Exclusive write")  # as HTTPFileSystem does


class LooksFirst(Filesystem):
    pipe_file = AbstractFileSystem.pipe_file  # as SFTPFileSystem has


@pytest.mark.parametrize("filesystem", [Overwriting, Unaware, Unwilling, LooksFirst])
def test_a_store_that_overwrites_is_refused(filesystem: type[Filesystem]) -> None:
    store = ObjectStore(filesystem(), "/bucket")
    with pytest.raises(MissingPartError, match="overwrite each other"):
        store.put(new_folder("lifelong", 1, 1), {"a": b"1"})
    assert store.folders("lifelong") == []
    with pytest.raises(MissingPartError, match="overwrite each other"):
        store.commit(manifest("lifelong", 1))
    assert store.numbers("lifelong") == []


def test_a_driver_that_cannot_write_is_refused() -> None:
    # What fsspec gives a driver that has not written the method.
    store = ObjectStore(AsyncFileSystem(), "/bucket")
    with pytest.raises(MissingPartError, match="overwrite each other"):
        store.put(new_folder("lifelong", 1, 1), {"a": b"1"})
    with pytest.raises(MissingPartError, match="overwrite each other"):
        store.commit(manifest("lifelong", 1))


class DriversOwnError(Exception):
    pass


@pytest.mark.parametrize("error", [OSError("connection reset"), DriversOwnError("connection reset")])
def test_what_a_driver_raises_while_reading_is_tried_again_and_names_the_setting(error: Exception) -> None:
    class Failing(Filesystem):
        def cat_file(self, path: str, **kwargs: Any) -> bytes:
            raise error

        def ls(self, path: str, **kwargs: Any) -> list[Any]:
            raise error

    store = ObjectStore(Failing(), "/bucket")
    for read in (lambda: store.manifest("lifelong", 1), lambda: store.numbers("lifelong")):
        with pytest.raises(UnreachableError, match=r"connection reset.*artifacts\.url"):
            read()


@pytest.mark.parametrize("error", [OSError("connection reset"), DriversOwnError("connection reset")])
def test_what_was_begun_is_taken_back(error: Exception) -> None:
    filesystem = Filesystem()
    store = ObjectStore(filesystem, "/bucket")
    store.put(new_folder("lifelong", 1, 1), {})
    before = dict(filesystem.store)
    filesystem.fails_at, filesystem.error = filesystem.num_written + 2, error
    with pytest.raises(UnreachableError, match="connection reset") as caught:
        store.put(new_folder("lifelong", 1, 1), {"a": b"1", "b": b"2", "c": b"3"})
    assert caught.value.retriable
    assert filesystem.store == before
    assert store.folders("lifelong") == []


def test_rights_are_not_a_matter_of_time() -> None:
    filesystem = Filesystem()
    filesystem.fails_at, filesystem.error = 0, PermissionError("Access Denied")
    with pytest.raises(RegistryError, match="credentials"):
        ObjectStore(filesystem, "/bucket").put(new_folder("lifelong", 1, 1), {"a": b"1"})


def test_a_commit_whose_answer_was_lost_has_happened() -> None:
    class Forgetful(Filesystem):
        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
            super().pipe_file(path, value, mode=mode, **kwargs)
            if path.endswith("00000001.json"):
                # What the client's second try is told.
                raise FileExistsError(path)

    store = ObjectStore(Forgetful(), "/bucket")
    store.commit(manifest("lifelong", 1))
    assert store.numbers("lifelong") == [1]


def test_plain_paths_are_directories(tmp_path: Path) -> None:
    for url in (str(tmp_path), f"file://{tmp_path}"):
        store = open_store(ArtifactSettings(url=url))
        assert isinstance(store, DirectoryStore)
    store.commit(manifest("lifelong", 1))
    assert (tmp_path / "lifelong" / "manifests" / "00000001.json").exists()


def test_other_urls_are_object_stores() -> None:
    assert isinstance(open_store(ArtifactSettings(url="memory://bucket/artifacts")), ObjectStore)


def test_a_missing_driver_says_what_to_install() -> None:
    fsspec.register_implementation("nodriver", "no_such_module.Filesystem", errtxt="Install nodriverfs", clobber=True)
    with pytest.raises(MissingPartError, match="Install nodriverfs"):
        open_store(ArtifactSettings(url="nodriver://bucket"))


def test_an_unknown_kind_of_url_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"artifacts\.url"):
        open_store(ArtifactSettings(url="nonsense://bucket"))
