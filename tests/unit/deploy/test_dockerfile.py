"""The image, as far as it can be checked without Docker."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "deploy" / "Dockerfile").read_text()
# One instruction a line, comments and continuations resolved.
LINES = [line for line in re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", TEXT)).splitlines() if line]
IGNORE = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text()


def instructions(name: str) -> list[str]:
    return [line.removeprefix(name + " ") for line in LINES if line.startswith(name + " ")]


def test_the_base_has_an_exact_tag_and_is_the_same_for_both_stages() -> None:
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+", instructions("ARG")[0])
    assert [line.split()[0] for line in instructions("FROM")] == ["${PYTHON_IMAGE}"] * 2


def test_packages_are_those_of_the_lock_file() -> None:
    installs = [line for line in instructions("RUN") if "pip install" in line]
    assert "--no-deps --require-hashes -r requirements/lock.txt -r requirements/models.txt" in installs[0]
    assert all("--no-deps" in line for line in installs)


def test_it_does_not_run_as_root() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert LINES.index("USER 10001:10001") > max(LINES.index(line) for line in LINES if line.startswith("RUN "))


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    for line in instructions("COPY"):
        if line.startswith("--from"):
            continue
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}\n" in IGNORE, source
