"""Versions in the memory of this process, for simulations and tests."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import msgspec

from lifelong.contracts.versions import FileEntry, Manifest, version_key
from lifelong.errors import FencedError, UnknownVersionError
from lifelong.registry import layout


class InMemoryStore:
    """An ``ArtifactStore`` that is gone with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: dict[str, dict[str, bytes]] = {}
        self._manifests: dict[str, dict[int, bytes]] = {}

    def put(self, folder: str, files: Mapping[str, bytes]) -> dict[str, FileEntry]:
        layout.check_folder(folder)
        with self._lock:
            assert folder not in self._folders, folder
            self._folders[folder] = {layout.check_file(name): bytes(data) for name, data in files.items()}
        return {name: layout.entry_of(data) for name, data in files.items()}

    def get(self, folder: str, name: str, entry: FileEntry) -> bytes:
        with self._lock:
            data = self._folders.get(layout.check_folder(folder), {}).get(layout.check_file(name))
        if data is None:
            raise layout.gone(f"{folder}/{name}")
        return layout.verified(data, entry, f"{folder}/{name}")

    def commit(self, manifest: Manifest) -> None:
        layout.manifests_path(manifest.line)
        data = msgspec.json.encode(manifest)
        with self._lock:
            of_line = self._manifests.setdefault(manifest.line, {})
            if of_line.setdefault(manifest.number, data) != data:
                raise FencedError(f"{version_key(manifest.line, manifest.number)} exists already, of another writer")

    def secure(self, line: str) -> None:
        pass

    def manifest(self, line: str, number: int) -> Manifest:
        with self._lock:
            data = self._manifests.get(line, {}).get(number)
        if data is None:
            raise UnknownVersionError(f"no version {version_key(line, number)}")
        return layout.decode_manifest(data, line, number, version_key(line, number))

    def numbers(self, line: str) -> list[int]:
        with self._lock:
            return sorted(self._manifests.get(line, {}))

    def lines(self) -> list[str]:
        with self._lock:
            return sorted(self._manifests)

    def folders(self, line: str) -> list[str]:
        prefix = layout.folders_path(line) + "/"
        with self._lock:
            return sorted(folder for folder in self._folders if folder.startswith(prefix))

    def drop(self, folder: str) -> None:
        with self._lock:
            self._folders.pop(layout.check_folder(folder), None)
