"""The few things that a store asks of a disk, so that a simulated one can take its place and lose power.

What is written is not durable by itself: the bytes of a file are when the file was synced, the names in a folder are
when the folder was.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Protocol


class NewFile(Protocol):
    """A file being written; ``with`` closes it."""

    def write(self, data: bytes) -> None: ...

    def sync(self) -> None:
        """Its bytes survive a power cut once this returns. Its name does when its folder was synced, too."""
        ...

    def __enter__(self) -> NewFile: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Disk(Protocol):
    """Every method raises OSError, as the functions of ``os`` do."""

    def create(self, path: Path) -> NewFile:
        """Raises FileExistsError."""
        ...

    def read(self, path: Path) -> bytes: ...

    def link(self, path: Path, new_path: Path) -> None:
        """A second name for a file, in one step. Raises FileExistsError."""
        ...

    def unlink(self, path: Path) -> None:
        """A missing file is no error."""
        ...

    def names(self, folder: Path) -> list[str]: ...

    def is_folder(self, path: Path) -> bool: ...

    def make_folder(self, path: Path) -> None:
        """Raises FileExistsError."""
        ...

    def remove_folder(self, path: Path) -> None:
        """With all that is in it."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Makes the names in it durable; a file's own sync does not."""
        ...


class RealDisk:
    def create(self, path: Path) -> NewFile:
        return _RealFile(path)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def link(self, path: Path, new_path: Path) -> None:
        os.link(path, new_path)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def names(self, folder: Path) -> list[str]:
        return os.listdir(folder)

    def is_folder(self, path: Path) -> bool:
        return path.is_dir()

    def make_folder(self, path: Path) -> None:
        path.mkdir()

    def remove_folder(self, path: Path) -> None:
        shutil.rmtree(path)

    def sync_folder(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _RealFile:
    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> _RealFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
