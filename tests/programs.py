"""What some tests need from outside: without it such a test is skipped on other machines and fails in CI."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest


def program(name: str, mend: str) -> str:
    """The path of the program. ``mend`` says how to get it, for example ``apt install kcat``."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed; {mend}")
    return path


def missing(what: str) -> NoReturn:
    """Ends the test. ``what`` says what is missing, and how to get it."""
    if os.environ.get("CI"):
        pytest.fail(what)
    # README promises that ``make test`` passes on a machine with Python, git and make alone, so a missing program must
    # not fail it there; the summary names what was not tested and the mend. CI installs all of them (.ci/run) and fails
    # above instead, so that nothing lands untested.
    pytest.skip(what)


def node_modules(folder: Path) -> str:
    """Installs what the lock file in ``folder`` names, if that was not done yet. Returns the path of ``node``."""
    node = program("node", "see nodejs.org, or apt install nodejs npm")
    npm = program("npm", "see nodejs.org, or apt install nodejs npm")
    installed = folder / "node_modules" / ".package-lock.json"
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < Path(lock.name).stat().st_mtime:
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"npm ci failed in {folder}:\n{done.stdout}{done.stderr}"
    return node
