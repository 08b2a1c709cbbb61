"""``lifelong settings`` is a file that means nothing but the defaults."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from lifelong.cli import app
from lifelong.cli.settings import processes, reference
from lifelong.config.loading import SECTIONS, load

PAGE = Path(__file__).parents[3] / "docs" / "settings.toml"


def test_the_page_is_what_the_command_prints() -> None:
    assert CliRunner().invoke(app, ["settings"]).output == PAGE.read_text()


@pytest.mark.parametrize("process", ["collector", "trainer", "distiller", "inference"])
def test_a_process_that_is_given_the_page_has_the_defaults(process: str) -> None:
    settings = processes()[process]
    assert load(settings, path=PAGE, environ={}) == settings()


def test_every_setting_is_there() -> None:
    said = tomllib.loads(reference().replace("# ssl_cafile =", 'ssl_cafile = ""'))
    assert said.keys() == SECTIONS
    for settings in processes().values():
        for section in msgspec.structs.fields(settings):
            names = {field.name for field in msgspec.structs.fields(section.type)}
            nothing = {name for name in names if getattr(section.type(), name) is None}
            assert said[section.name].keys() >= names - nothing
            assert all(f"# {name} =" in reference() for name in nothing)
    assert "ssl_cafile" in said["kafka"]


def test_what_a_setting_means_and_may_be_is_said() -> None:
    page = reference()
    assert "# New samples that make a micro-batch full. A record is never divided, so there may be more. (≥ 1)" in page
    assert "# One of DEBUG, ERROR, INFO, WARNING.\n" in page
    assert "# Read by trainer.\n" in page
    assert "[collector.dead_letter_limit]" in page


ROOT = PAGE.parents[1]
TEXTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("deploy/prometheus/rules/*.yml"))]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_that_are_named_exist(path: Path) -> None:
    known = {
        f"{section.name}.{field.name}"
        for settings in processes().values()
        for section in msgspec.structs.fields(settings)
        for field in msgspec.structs.fields(section.type)
    }
    pattern = rf"\b({'|'.join(SECTIONS)})\.([a-z]\w*)"
    quoted = path.read_text() if path.suffix == ".yml" else " ".join(re.findall(r"`([^`\n]*)`", path.read_text()))
    named = {".".join(found) for found in re.findall(rf"(?<![./\w-]){pattern}(?![\w/(])", quoted)}
    # Files of the same names.
    assert {name for name in named if not name.endswith((".py", ".md", ".yaml", ".safetensors"))} <= known
