"""Whether variables that a deployment sets are settings that the process has."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import msgspec

from lifelong.cli.addresses import Settings as CliSettings
from lifelong.config.loading import load


def process_of(command: list[str]) -> str:
    """``python -m lifelong.trainer`` → ``trainer``; anything else is the command line."""
    return command[2].removeprefix("lifelong.") if command[:2] == ["python", "-m"] else "cli"


def loaded(process: str, environ: Mapping[str, str]) -> msgspec.Struct:
    """Raises ConfigError for a variable that no process knows, or this one cannot read."""
    settings = CliSettings if process == "cli" else importlib.import_module(f"lifelong.{process}.config").Settings
    return load(settings, environ=environ)


def sections_of(settings: msgspec.Struct) -> set[str]:
    return {field.name for field in msgspec.structs.fields(settings)}
