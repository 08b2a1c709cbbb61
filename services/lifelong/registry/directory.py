"""Versions in a directory: of a disk, or of a network file system that has hard links."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from lifelong.contracts.versions import FileEntry, Manifest, version_key
from lifelong.errors import FencedError, MissingPartError, RegistryError, UnknownVersionError
from lifelong.registry import layout
from lifelong.registry.disk import Disk, RealDisk


class DirectoryStore:
    """An ``ArtifactStore``. Any number of processes may use the same directory at the same time.

    The commit point is a hard link: it is one step, it never replaces what is there, and the bytes that it names are
    on the disk before.
    """

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self._root = root
        self._disk: Disk = disk or RealDisk()
        self._durable: set[Path] = set()
        """Folders that survive a power cut."""

    def put(self, folder: str, files: Mapping[str, bytes]) -> dict[str, FileEntry]:
        path = self._root / layout.check_folder(folder)
        names = [layout.check_file(name) for name in files]
        with _disk_errors(path):
            self._make_folders(path.parent)
            self._disk.make_folder(path)
            try:
                for name in names:
                    self._write(path / name, files[name])
                self._disk.sync_folder(path)
                self._disk.sync_folder(path.parent)
            except BaseException:
                with suppress(OSError):
                    self._disk.remove_folder(path)
                raise
        return {name: layout.entry_of(data) for name, data in files.items()}

    def get(self, folder: str, name: str, entry: FileEntry) -> bytes:
        path = self._root / layout.check_folder(folder) / layout.check_file(name)
        with _disk_errors(path):
            try:
                data = self._disk.read(path)
            except FileNotFoundError as error:
                raise layout.gone(str(path)) from error
        return layout.verified(data, entry, str(path))

    def commit(self, manifest: Manifest) -> None:
        folder = self._root / layout.manifests_path(manifest.line)
        path = folder / layout.manifest_name(manifest.number)
        data = msgspec.json.encode(manifest)
        # A name that is no manifest: whoever dies here leaves a file that nobody reads.
        scratch = folder / f".{path.name}.{secrets.token_hex(4)}"
        with _disk_errors(path):
            self._make_folders(folder)
            try:
                self._write(scratch, data)
                try:
                    self._disk.link(scratch, path)
                except FileExistsError as error:
                    # Over NFS the answer to a link that was made can be lost, and the second try finds it made.
                    if self._disk.read(path) != data:
                        key = version_key(manifest.line, manifest.number)
                        raise FencedError(f"{key} exists already, of another writer") from error
            finally:
                self._disk.unlink(scratch)
            self._disk.sync_folder(folder)

    def secure(self, line: str) -> None:
        folder = self._root / layout.manifests_path(line)
        with _disk_errors(folder):
            if self._disk.is_folder(folder):
                self._make_folders(folder)
                self._make_folders(self._root / layout.folders_path(line))
                self._disk.sync_folder(folder)

    def manifest(self, line: str, number: int) -> Manifest:
        path = self._root / layout.manifests_path(line) / layout.manifest_name(number)
        with _disk_errors(path):
            try:
                data = self._disk.read(path)
            except FileNotFoundError as error:
                raise UnknownVersionError(f"no version {version_key(line, number)}") from error
        return layout.decode_manifest(data, line, number, str(path))

    def numbers(self, line: str) -> list[int]:
        names = self._names(layout.manifests_path(line))
        return sorted(number for name in names if (number := layout.manifest_number(name)) is not None)

    def lines(self) -> list[str]:
        names = [name for name in self._names("") if layout.is_line(name)]
        return sorted(name for name in names if self._disk.is_folder(self._root / layout.manifests_path(name)))

    def folders(self, line: str) -> list[str]:
        path = layout.folders_path(line)
        folders = (f"{path}/{name}" for name in self._names(path))
        return sorted(folder for folder in folders if layout.folder_number(folder) is not None)

    def drop(self, folder: str) -> None:
        path = self._root / layout.check_folder(folder)
        with _disk_errors(path):
            try:
                self._disk.remove_folder(path)
            except FileNotFoundError:
                # Somebody else is clearing up too.
                return

    def _names(self, path: str) -> list[str]:
        with _disk_errors(self._root / path):
            try:
                return self._disk.names(self._root / path)
            except (FileNotFoundError, NotADirectoryError):
                return []

    def _write(self, path: Path, data: bytes) -> None:
        with self._disk.create(path) as file:
            file.write(data)
            file.sync()

    def _make_folders(self, path: Path) -> None:
        """Durable when this returns, also where another process made one of them and died before it was."""
        is_there = self._disk.is_folder(path)
        if is_there and path in self._durable:
            return
        if not is_there or self._root in path.parents:
            self._make_folders(path.parent)
        with suppress(FileExistsError):
            if not is_there:
                self._disk.make_folder(path)
        try:
            self._disk.sync_folder(path.parent)
        except PermissionError:
            # Of the folders around the root not all need be ours to read; what we have made there has to be safe.
            if not is_there:
                raise
        self._durable.add(path)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RegistryError(
                f"{path}: the disk is full ({error.strerror}); free space there, or lower artifacts.keep_versions"
            ) from error
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK) and error.filename2:
            raise MissingPartError(
                f"{path}: this file system has no hard links ({error.strerror}), so versions cannot be committed "
                "safely; set artifacts.url to a directory of another file system"
            ) from error
        raise RegistryError(f"{path}: {error.strerror}; set artifacts.url to a directory that can be used") from error
