"""Rules about the source that no linter knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lifelong

ROOT = Path(lifelong.__file__).parent
REPOSITORY = ROOT.parent.parent
FILES = sorted([*ROOT.rglob("*.py"), *(REPOSITORY / "tests").rglob("*.py"), *(REPOSITORY / "benchmarks").rglob("*.py")])


def test_no_file_has_more_than_five_hundred_lines() -> None:
    long = {path.name: lines for path in FILES if (lines := len(path.read_text().splitlines())) > 500}
    assert long == {}


def test_no_drawer_without_a_name_of_its_own() -> None:
    drawers = {"utils", "util", "common", "helpers", "misc"}
    assert [path for path in FILES if path.stem in drawers or path.parent.name in drawers] == []


def test_the_collector_runs_without_torch() -> None:
    code = "import sys, lifelong.collector.app; print('torch' in sys.modules or 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_the_front_door_is_honest() -> None:
    for name in lifelong.__all__:
        assert getattr(lifelong, name).__name__ == name
    code = "import sys, lifelong; print('kafka' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False", "importing the package should cost nothing"
