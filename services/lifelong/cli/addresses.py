"""Which servers a command talks to: those of the stack that runs here, or those of the settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from lifelong.config.loading import load
from lifelong.config.shared import ArtifactSettings, KafkaSettings, LineSettings, RedisSettings
from lifelong.errors import MissingPartError
from lifelong.local.stack import LocalStack

Home = Annotated[
    Path,
    typer.Option("--home", envvar="LIFELONG_HOME", help="Where the data of the stack on this machine is."),
]
DEFAULT_HOME = Path(".lifelong")


class Settings(msgspec.Struct, frozen=True):
    """Of all settings, those that a command needs."""

    line: LineSettings = LineSettings()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    artifacts: ArtifactSettings = ArtifactSettings()


class Addresses(msgspec.Struct, frozen=True):
    settings: Settings
    http: str
    """Base URL of the inference server."""


def find(home: Path) -> Addresses:
    """The servers that the settings name, LIFELONG_CONFIG or LIFELONG_KAFKA__BOOTSTRAP_SERVERS; without either, those
    of the stack that runs in ``home``.

    Raises:
        MissingPartError: neither. ConfigError: a setting is wrong.
    """
    settings = load(Settings)
    if os.environ.get("LIFELONG_CONFIG") or os.environ.get("LIFELONG_KAFKA__BOOTSTRAP_SERVERS"):
        return Addresses(settings, os.environ.get("LIFELONG_HTTP") or "http://127.0.0.1:8000")
    status = LocalStack(home).status()
    if not status.running:
        raise MissingPartError(
            f"nothing runs in {home}: start it with `lifelong up`, name another folder with --home, "
            "or set LIFELONG_CONFIG or LIFELONG_KAFKA__BOOTSTRAP_SERVERS to use servers elsewhere"
        )
    replace = msgspec.structs.replace
    return Addresses(
        replace(
            settings,
            kafka=replace(settings.kafka, bootstrap_servers=status.kafka),
            redis=replace(settings.redis, url=status.redis),
            artifacts=replace(settings.artifacts, url=status.artifacts),
        ),
        status.http,
    )
