from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from lifelong.cli import addresses, app
from lifelong.cli.addresses import find
from lifelong.cli.application import read_events
from lifelong.cli.probes import PROBES_FILE, read_probes
from lifelong.contracts.events import Probe
from lifelong.errors import ConfigError, DecodeError, MissingPartError
from lifelong.local.status import StackStatus
from lifelong.trainer.state import PROBES_FILE as WRITTEN

runner = CliRunner()


@pytest.fixture(autouse=True)
def _no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIFELONG_CONFIG", "LIFELONG_KAFKA__BOOTSTRAP_SERVERS", "LIFELONG_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_help_lists_every_command() -> None:
    said = runner.invoke(app, ["--help"]).output
    for command in (
        "up",
        "down",
        "status",
        "demo",
        "settings",
        "publish",
        "ask",
        "feedback",
        "outputs",
        "versions",
        "topics",
        "probes",
        "quarantine",
    ):
        assert command in said


@pytest.mark.parametrize(
    "command",
    [
        ["ask", "?"],
        ["publish", "x"],
        ["outputs"],
        ["versions", "list"],
        ["versions", "rollback"],
        ["topics", "check"],
        ["probes", "list"],
        ["probes", "add", "--question", "?", "--answer", "!"],
        ["probes", "remove", "x"],
        ["quarantine", "list"],
    ],
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
    assert [type(event).__name__ for event in read_events(file)] == ["Document", "Fact"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("no json", "malformed"),
        ("\u00ff".encode("latin-1"), "UTF-8|utf-8|malformed"),
        ("{}", "missing required field `type`"),
        ('{"type": "lifelong.document"}', "missing required field `data`"),
        ('{"type": "lifelong.nothing", "data": {}}', "'lifelong.nothing'; known are lifelong.document"),
        ('{"type": "lifelong.document", "data": {"text": 5}}', r"Expected `str`, got `int` - at `\$\.text`"),
        ('{"type": "lifelong.document", "data": {"text": "x"}, "time": "2026-01-01"}', "unknown field `time`"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str | bytes, problem: str) -> None:
    file = tmp_path / "events.jsonl"
    line = line if isinstance(line, bytes) else line.encode()
    file.write_bytes(b'{"type": "lifelong.document", "data": {"text": "hello"}}\n' + line + b"\n")
    with pytest.raises(DecodeError, match=rf"events\.jsonl:2: .*({problem})"):
        read_events(file)


@pytest.mark.parametrize(
    "command",
    [
        ["publish", ""],
        ["publish", "--file", "/no/such/file"],
        ["feedback", "Where?", "--correction", ""],
        ["feedback", "Where?", "--answer", "Here.", "--rating", "2"],
        ["feedback", "Where?", "--rating", "1"],
        ["ask", "Where?", "--max-tokens", "0"],
        ["probes", "add", "--question", "Where?"],
        ["probes", "add", "--question", "Where?", "--answer", "Here.", "--file", "/dev/null"],
        ["probes", "add", "--question", "Where?", "--answer", ""],
        ["probes", "remove"],
        ["versions", "show"],
        ["versions", "show", "one"],
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_asked(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody listens there, and nobody is called.
    monkeypatch.setenv("LIFELONG_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    result = runner.invoke(app, command)
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert "Error" in result.stderr


def status(running: bool) -> StackStatus:
    return StackStatus(
        home="home", running=running, ready=running, kafka="127.0.0.1:1111", redis="redis://127.0.0.1:2222/0",
        http="http://127.0.0.1:3333", artifacts="/artifacts", live_version=None, processes=(),
    )  # fmt: skip


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack runs in every home."""
    monkeypatch.setattr(addresses, "LocalStack", lambda home: SimpleNamespace(status=lambda: status(True)))


@pytest.mark.usefixtures("stack")
def test_the_stack_that_runs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    # As Docker Compose sets what it was not given.
    monkeypatch.setenv("LIFELONG_CONFIG", "")
    monkeypatch.setenv("LIFELONG_LINE__NAME", "other")
    found = find(Path("home"))
    assert (found.settings.kafka.bootstrap_servers, found.http) == ("127.0.0.1:1111", "http://127.0.0.1:3333")
    assert (found.settings.redis.url, found.settings.artifacts.url) == ("redis://127.0.0.1:2222/0", "/artifacts")
    assert found.settings.line.name == "other"


@pytest.mark.usefixtures("stack")
def test_servers_that_the_settings_name_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "lifelong.toml"
    file.write_text('[kafka]\nbootstrap_servers = "broker:9092"\n[redis]\nurl = "redis://store:6379/0"\n')
    monkeypatch.setenv("LIFELONG_CONFIG", str(file))
    monkeypatch.setenv("LIFELONG_HTTP", "http://server:8000")
    found = find(Path("home"))
    assert (found.settings.kafka.bootstrap_servers, found.settings.redis.url) == ("broker:9092", "redis://store:6379/0")
    assert found.http == "http://server:8000"


@pytest.mark.usefixtures("stack")
def test_a_setting_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFELONG_LINE__NAMES", "other")
    with pytest.raises(ConfigError, match=r"line\.names"):
        find(Path("home"))


def test_what_promote_holds_is_said() -> None:
    said = " ".join(runner.invoke(app, ["versions", "promote", "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert "is live and held until the next `promote` or `rollback`" in said


def test_a_file_of_probes(tmp_path: Path) -> None:
    file = tmp_path / "probes.jsonl"
    who = '{"question": "Who?", "answer": "Ann."}'
    file.write_text(who + '\n\n{"question": "Where?", "answer": "Here.", "task": "x"}\n')
    assert read_probes(file) == [Probe("Who?", "Ann."), Probe("Where?", "Here.", "x")]
    file.write_text(who + '\n{"question": "Who?", "answer": ""}\n')
    with pytest.raises(DecodeError, match=r"probes\.jsonl:2: .*length >= 1"):
        read_probes(file)


def test_the_trainer_writes_probes_where_they_are_looked_for() -> None:
    assert PROBES_FILE == WRITTEN
