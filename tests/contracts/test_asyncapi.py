"""The AsyncAPI document, judged by AsyncAPI's own parser."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from tests.programs import node_modules

from lifelong.contracts.schemas import DOCS

CHECKER = Path(__file__).parent / "asyncapi"


def validate(document: Path) -> subprocess.CompletedProcess[str]:
    node = node_modules(CHECKER)
    command = [node, str(CHECKER / "validate.mjs"), str(document)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_parser_finds_nothing() -> None:
    done = validate(DOCS / "asyncapi.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"channels":8' in done.stdout


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("components", "messages", "Fact", "examples", 0), {"value": {}}),
        (("components", "messages", "Fact", "payload", "$ref"), "#/components/schemas/Nowhere"),
        (("operations", "collector.send.samples", "action"), "sends"),
        (("channels", "events", "bindings", "kafka", "partitions"), "four"),
    ],
)
def test_the_parser_would_find_a_mistake(tmp_path: Path, path: tuple[str | int, ...], value: object) -> None:
    document = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
    *parents, last = path
    place = document
    for step in parents:
        place = place[step]
    place[last] = value
    broken = tmp_path / "broken.yaml"
    broken.write_text(yaml.safe_dump(document))
    assert validate(broken).returncode == 1


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (CHECKER / "package-lock.json").read_text()
