"""Versions in an object store, by fsspec: S3, GCS, Azure and whatever else can create an object exclusively."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from lifelong.contracts.versions import FileEntry, Manifest, version_key
from lifelong.errors import FencedError, MissingPartError, RegistryError, UnknownVersionError, UnreachableError
from lifelong.registry import layout

_PROBE = "exclusive-creation"


class ObjectStore:
    """An ``ArtifactStore``. An object is durable and whole once its upload has returned, or it is not there.

    The commit point is the exclusive creation of the manifest (put-if-absent, ``If-None-Match: *`` in S3's terms). An
    object store that would silently overwrite is refused before anything of a version is uploaded.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        """
        Args:
            filesystem: an ``fsspec.AbstractFileSystem``.
            root: bucket and path, as that file system writes them.
        """
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._probed = False

    def put(self, folder: str, files: Mapping[str, bytes]) -> dict[str, FileEntry]:
        layout.check_folder(folder)
        self._probe()
        try:
            for name, data in files.items():
                path = self._path(f"{folder}/{layout.check_file(name)}")
                with _remote_errors(path):
                    self._fs.pipe_file(path, data)
        except BaseException:
            self.drop(folder)
            raise
        return {name: layout.entry_of(data) for name, data in files.items()}

    def get(self, folder: str, name: str, entry: FileEntry) -> bytes:
        path = self._path(f"{layout.check_folder(folder)}/{layout.check_file(name)}")
        data = self._read(path)
        if data is None:
            raise layout.gone(path)
        return layout.verified(data, entry, path)

    def commit(self, manifest: Manifest) -> None:
        self._probe()
        path = self._manifest_path(manifest.line, manifest.number)
        data = msgspec.json.encode(manifest)
        # The answer to a creation that was done can be lost, and the client's second try finds it done.
        if not self._create(path, data) and self._read(path) != data:
            raise FencedError(f"{version_key(manifest.line, manifest.number)} exists already, of another writer")

    def secure(self, line: str) -> None:
        """An object that can be seen is durable."""

    def manifest(self, line: str, number: int) -> Manifest:
        path = self._manifest_path(line, number)
        data = self._read(path)
        if data is None:
            raise UnknownVersionError(f"no version {version_key(line, number)}")
        return layout.decode_manifest(data, line, number, path)

    def numbers(self, line: str) -> list[int]:
        names = self._names(layout.manifests_path(line))
        return sorted(number for name in names if (number := layout.manifest_number(name)) is not None)

    def lines(self) -> list[str]:
        return sorted(name for name in self._names("") if layout.is_line(name) and self.numbers(name))

    def folders(self, line: str) -> list[str]:
        path = layout.folders_path(line)
        folders = (f"{path}/{name}" for name in self._names(path))
        return sorted(folder for folder in folders if layout.folder_number(folder) is not None)

    def drop(self, folder: str) -> None:
        path = self._path(layout.check_folder(folder))
        with _remote_errors(path):
            try:
                self._fs.rm(path, recursive=True)
            except FileNotFoundError:
                # Nothing was written, or somebody else is clearing up too.
                return

    def _probe(self) -> None:
        if self._probed:
            return
        from fsspec import AbstractFileSystem  # which whoever keeps versions in a directory need not import

        if getattr(self._fs.pipe_file, "__func__", None) is AbstractFileSystem.pipe_file:
            # What a driver without one of its own has: no attempt shows it, but two at once would both find nothing.
            raise self._not_exclusive("its driver first looks and then writes")
        path = self._path(_PROBE)
        self._create(path, b"")
        if self._create(path, b""):
            raise self._not_exclusive("it overwrote an object that it was told to create")
        self._probed = True

    def _not_exclusive(self, reason: str) -> MissingPartError:
        return MissingPartError(
            f"{self._root}: this store cannot create an object only if it is not there ({reason}), so two trainers "
            "could overwrite each other's versions; use a newer fsspec driver, or point artifacts.url at a directory "
            "or a store that can (S3, GCS, Azure)"
        )

    def _create(self, path: str, data: bytes) -> bool:
        with _remote_errors(path):
            try:
                self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except (NotImplementedError, TypeError) as error:
                # The first is how fsspec's own drivers say that they cannot ("Exclusive write", HTTPFileSystem), the
                # second how Python does for a driver that is older than the argument. No waiting mends either.
                raise self._not_exclusive(str(error)) from error
        return True

    def _read(self, path: str) -> bytes | None:
        with _remote_errors(path):
            try:
                data: bytes = self._fs.cat_file(path)
            except FileNotFoundError:
                return None
        return data

    def _names(self, path: str) -> list[str]:
        whole = self._path(path)
        with _remote_errors(whole):
            # Others write too: a listing from the client's cache may be of the past.
            self._fs.invalidate_cache()
            try:
                return [str(name).rstrip("/").rpartition("/")[2] for name in self._fs.ls(whole, detail=False)]
            except FileNotFoundError:
                return []

    def _manifest_path(self, line: str, number: int) -> str:
        return self._path(f"{layout.manifests_path(line)}/{layout.manifest_name(number)}")

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")


@contextmanager
def _remote_errors(path: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise RegistryError(f"{path}: {error}; check credentials and rights of artifacts.url") from error
    except MissingPartError:
        raise
    except Exception as error:
        # Each driver has its own errors for a network that is away, few of them an OSError.
        raise UnreachableError(
            f"{path}: {type(error).__name__}: {error}; if it stays so, check artifacts.url and its credentials"
        ) from error
