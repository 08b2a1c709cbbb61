"""Rules about the source that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lifelong
from lifelong.contracts import metrics
from lifelong.contracts.metrics import Metric

ROOT = Path(lifelong.__file__).parent
REPOSITORY = ROOT.parent.parent
FILES = sorted([*ROOT.rglob("*.py"), *(REPOSITORY / "tests").rglob("*.py"), *(REPOSITORY / "benchmarks").rglob("*.py")])


def test_no_file_has_more_than_five_hundred_lines() -> None:
    long = {path.name: lines for path in FILES if (lines := len(path.read_text().splitlines())) > 500}
    assert long == {}


def test_no_drawer_without_a_name_of_its_own() -> None:
    drawers = {"utils", "util", "common", "helpers", "misc"}
    assert [path for path in FILES if path.stem in drawers or path.parent.name in drawers] == []


@pytest.mark.parametrize(
    "module", ["collector.app", "client", "registry.registry", "stream.kafka", "memory.redis", "cli"]
)
def test_what_needs_no_model_runs_without_torch(module: str) -> None:
    code = f"import sys, lifelong.{module}; print({{'torch', 'transformers', 'peft'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def metrics_used() -> list[tuple[str, str]]:
    """(part of the package, name in ``contracts.metrics``), wherever the code counts, sets or observes one."""
    used = []
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        alias = next(
            (
                name.asname or name.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module == "lifelong.contracts"
                for name in node.names
                if name.name == "metrics"
            ),
            None,
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == alias:
                used.append((path.relative_to(ROOT).parts[0], node.attr))
    return used


def test_every_metric_used_is_one_of_the_process_that_uses_it() -> None:
    used = [(part, getattr(metrics, name)) for part, name in metrics_used()]
    ours = [(part, metric) for part, metric in used if isinstance(metric, Metric)]
    assert len(ours) > 50, "the search finds nothing any more"
    processes = {"collector", "trainer", "distiller", "inference"}
    strange = {
        (part, metric.name) for part, metric in ours if part in processes and metric.process not in ("every", part)
    }
    assert strange == set()


def test_every_metric_is_used() -> None:
    used = {name for _, name in metrics_used()}
    assert {name for name, value in vars(metrics).items() if isinstance(value, Metric)} - used == set()


def test_the_front_door_is_honest() -> None:
    for name in lifelong.__all__:
        assert getattr(lifelong, name).__name__ == name
    code = "import sys, lifelong; print('kafka' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False", "importing the package should cost nothing"
