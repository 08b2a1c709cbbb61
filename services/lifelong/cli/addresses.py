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
    """What a command needs; ``http`` and an API key are given to the commands that speak HTTP."""

    line: LineSettings = LineSettings()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    artifacts: ArtifactSettings = ArtifactSettings()


class Addresses(msgspec.Struct, frozen=True):
    settings: Settings
    http: str


def find(home: Path) -> Addresses:
    """The stack in ``home`` if it runs; else what LIFELONG_CONFIG and LIFELONG_* say.

    Raises:
        MissingPartError: neither.
    """
    if "LIFELONG_CONFIG" in os.environ or "LIFELONG_KAFKA__BOOTSTRAP_SERVERS" in os.environ:
        return Addresses(load(Settings), os.environ.get("LIFELONG_HTTP", "http://127.0.0.1:8000"))
    status = LocalStack(home).status()
    if not status.running:
        raise MissingPartError(
            f"nothing runs in {home}: start it with `lifelong up`, name another folder with --home, "
            "or set LIFELONG_CONFIG or LIFELONG_KAFKA__BOOTSTRAP_SERVERS to use servers elsewhere"
        )
    return Addresses(
        Settings(
            kafka=KafkaSettings(bootstrap_servers=status.kafka),
            redis=RedisSettings(url=status.redis),
            artifacts=ArtifactSettings(url=status.artifacts),
        ),
        status.http,
    )
