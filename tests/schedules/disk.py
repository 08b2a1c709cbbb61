"""A small disk of its own for the artifact store, which can be filled to the last byte."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

_BLOCK = 1024 * 1024


class SmallDisk:
    """A file system in memory. Needs the right to mount; without it ``is_apart`` is false and it is a plain folder,
    which cannot be filled."""

    def __init__(self, folder: Path, num_megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={num_megabytes}m", "tmpfs", str(folder)]
        self.is_apart = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0

    def fill(self) -> None:
        """Until not one byte more fits. Files that others write meanwhile may be cut off anywhere."""
        assert self.is_apart, "a disk that is shared must not be filled"
        with (self.folder / "ballast").open("ab", buffering=0) as ballast:
            size = _BLOCK
            while size:
                try:
                    ballast.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 16

    def free(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        if self.is_apart:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
            self.is_apart = False
