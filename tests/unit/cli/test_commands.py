from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lifelong.cli import app
from lifelong.cli.application import _events
from lifelong.errors import DecodeError, MissingPartError

runner = CliRunner()


@pytest.fixture(autouse=True)
def _no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIFELONG_CONFIG", "LIFELONG_KAFKA__BOOTSTRAP_SERVERS", "LIFELONG_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_help_lists_every_command() -> None:
    said = runner.invoke(app, ["--help"]).output
    for command in ("up", "down", "status", "demo", "publish", "ask", "feedback", "outputs", "versions", "topics"):
        assert command in said


@pytest.mark.parametrize(
    "command",
    [["ask", "?"], ["publish", "x"], ["outputs"], ["versions", "list"], ["versions", "rollback"], ["topics", "check"]],
)
def test_without_a_stack_the_mend_is_named(command: list[str], tmp_path: Path) -> None:
    result = runner.invoke(app, [*command, "--home", str(tmp_path / "none")])
    assert isinstance(result.exception, MissingPartError)
    assert "lifelong up" in str(result.exception)


def test_an_error_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lifelong.cli", "ask", "?", "--home", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("lifelong: nothing runs in")
    assert done.stderr.count("\n") == 1


def test_status_of_nothing_says_so(tmp_path: Path) -> None:
    result = runner.invoke(app, ["status", "--json", "--home", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert '"running": false' in result.output


@pytest.mark.parametrize("command", [["publish"], ["publish", "x", "--file", "y"], ["feedback", "?"]])
def test_what_is_missing_is_said(command: list[str]) -> None:
    assert runner.invoke(app, command).exit_code == 2


def test_a_file_of_events(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(
        '{"type": "lifelong.document", "data": {"text": "hello"}}\n\n'
        '{"type": "lifelong.fact", "data": {"subject": "a", "relation": "b", "object": "c"}}\n'
    )
    assert [type(event).__name__ for event in _events(file)] == ["Document", "Fact"]


@pytest.mark.parametrize(
    "line",
    ["no json", "{}", '{"type": "lifelong.nothing", "data": {}}', '{"type": "lifelong.document", "data": {"text": 5}}'],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"type": "lifelong.document", "data": {"text": "hello"}}\n' + line + "\n")
    with pytest.raises(DecodeError, match=r"events\.jsonl:2"):
        _events(file)
