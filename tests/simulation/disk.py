"""A disk in memory that can lose its power: then only what was synced is certain to be there.

As POSIX has it: the bytes of a file are durable when the file was synced, a name in a folder when the folder was. Of
everything else a power cut keeps what the seed says: a file that was not synced has a part of its bytes, and of the
names that came, went or changed since the last sync some did and some did not.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

Step = Callable[[str], str | None]


class _File:
    def __init__(self) -> None:
        self.data = bytearray()
        self.num_synced = 0


class _Folder:
    def __init__(self) -> None:
        self.names: dict[str, _File | _Folder] = {}
        self.synced: dict[str, _File | _Folder] = {}


class SimulatedDisk:
    """Shared by all processes; each has a view of its own, see ``mounted``."""

    def __init__(self) -> None:
        self.root = _Folder()
        self.on_link: Callable[[Path, bytes], None] = lambda path, data: None

    def mounted(self, on: Step) -> Mounted:
        return Mounted(self, on)

    def power_cut(self, seed: random.Random) -> None:
        _cut(self.root, seed)


def _cut(folder: _Folder, seed: random.Random) -> None:
    for name in sorted(folder.names.keys() | folder.synced.keys()):
        now, synced = folder.names.get(name), folder.synced.get(name)
        kept = now if now is synced or seed.random() < 0.5 else synced
        if kept is None:
            folder.names.pop(name, None)
            continue
        folder.names[name] = kept
        if isinstance(kept, _Folder):
            _cut(kept, seed)
        elif kept.num_synced < len(kept.data):
            del kept.data[seed.randint(kept.num_synced, len(kept.data)) :]
            kept.num_synced = len(kept.data)
    folder.synced = dict(folder.names)


class Mounted:
    """A ``Disk``. ``on`` is called before everything that is done, with ``disk.`` and what it is."""

    def __init__(self, disk: SimulatedDisk, on: Step) -> None:
        self._disk = disk
        self._on = on

    def create(self, path: Path) -> _NewFile:
        self._on("disk.create")
        folder = self._folder(path.parent)
        if path.name in folder.names:
            raise _error(errno.EEXIST, path)
        file = folder.names[path.name] = _File()
        return _NewFile(file, self._on)

    def replace(self, path: Path, data: bytes) -> None:
        """Written in place, as a careless store would do it."""
        self._on("disk.create")
        file = self._folder(path.parent).names[path.name] = _File()
        new = _NewFile(file, self._on)
        new.write(data)
        new.sync()

    def read(self, path: Path) -> bytes:
        self._on("disk.read")
        file = self._folder(path.parent).names.get(path.name)
        if not isinstance(file, _File):
            raise _error(errno.ENOENT, path)
        return bytes(file.data)

    def link(self, path: Path, new_path: Path) -> None:
        fault = self._on("disk.link")
        file = self._folder(path.parent).names.get(path.name)
        if not isinstance(file, _File):
            raise _error(errno.ENOENT, path)
        names = self._folder(new_path.parent).names
        if new_path.name in names:
            raise _error(errno.EEXIST, new_path)
        names[new_path.name] = file
        self._disk.on_link(new_path, bytes(file.data))
        if fault == "fail after":
            raise _error(errno.EIO, new_path)

    def unlink(self, path: Path) -> None:
        self._on("disk.unlink")
        self._folder(path.parent).names.pop(path.name, None)

    def names(self, folder: Path) -> list[str]:
        self._on("disk.names")
        return list(self._folder(folder).names)

    def is_folder(self, path: Path) -> bool:
        try:
            self._folder(path)
        except OSError:
            return False
        return True

    def make_folder(self, path: Path) -> None:
        self._on("disk.make_folder")
        names = self._folder(path.parent).names
        if path.name in names:
            raise _error(errno.EEXIST, path)
        names[path.name] = _Folder()

    def remove_folder(self, path: Path) -> None:
        for name in self.names(path):
            self.unlink(path / name)
        self._on("disk.remove_folder")
        self._folder(path.parent).names.pop(path.name, None)

    def sync_folder(self, path: Path) -> None:
        self._on("disk.sync_folder")
        folder = self._folder(path)
        folder.synced = dict(folder.names)

    def _folder(self, path: Path) -> _Folder:
        folder = self._disk.root
        for name in path.parts[1:]:
            inner = folder.names.get(name)
            if not isinstance(inner, _Folder):
                raise _error(errno.ENOENT if inner is None else errno.ENOTDIR, path)
            folder = inner
        return folder


class _NewFile:
    def __init__(self, file: _File, on: Step) -> None:
        self._file = file
        self._on = on

    def write(self, data: bytes) -> None:
        self._on("disk.write")
        half = len(data) // 2
        self._file.data += data[:half]
        # Whoever dies here leaves half a file.
        self._on("disk.write")
        self._file.data += data[half:]

    def sync(self) -> None:
        self._on("disk.sync")
        self._file.num_synced = len(self._file.data)

    def __enter__(self) -> _NewFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
