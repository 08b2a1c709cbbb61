"""Room on the disk: looked for before a start, and named when it runs out."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from lifelong.errors import LifelongError

# Enough to start and to say why it stops. A broker that runs out later stops by itself and keeps its data.
MIN_FREE_BYTES = 256 * 1024 * 1024

MEND = "make room, or use a home on another disk (--home)"


class DiskFullError(LifelongError):
    """The message names the place and ends with what to do about it."""


def check_room(folder: Path) -> None:
    """Raises:
    DiskFullError: there is too little to start with.
    """
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise DiskFullError(
            f"the disk is nearly full: {free >> 20} MiB are free in {folder}, {MIN_FREE_BYTES >> 20} are needed: {MEND}"
        )


@contextlib.contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """Around writes below ``folder``: turns the bare error of the system into one that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"the disk of {folder} is full: {MEND}") from error
        raise
