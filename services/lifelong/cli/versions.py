"""``lifelong versions``: what was learned, what is served, and the way back."""

from __future__ import annotations

import datetime
import time
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from lifelong.cli.addresses import DEFAULT_HOME, Addresses, Home, find
from lifelong.contracts import topics
from lifelong.contracts.codec import encode
from lifelong.contracts.versions import Change, VersionEvent, version_event, version_key
from lifelong.registry.artifacts import open_store
from lifelong.registry.base import PointerState
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry
from lifelong.runtime.clock import SystemClock
from lifelong.stream.kafka import KafkaSink

app = typer.Typer(help="The versions of the model.", no_args_is_help=True)

Line = Annotated[str | None, typer.Option(help="Which line; the student's is NAME-student.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def _registry(addresses: Addresses) -> Registry:
    settings = addresses.settings
    return Registry(open_store(settings.artifacts), RedisPointers(settings.redis.url), SystemClock())


@app.command("list")
def list_versions(home: Home = DEFAULT_HOME, line: Line = None, json: Json = False) -> None:
    """All versions, newest first, and which one is live."""
    addresses = find(home)
    registry = _registry(addresses)
    name = line or addresses.settings.line.name
    state, manifests = registry.state(name), registry.versions(name)
    if json:
        typer.echo(msgspec.json.encode({"state": state, "versions": manifests}).decode())
        return
    table = Table("version", "", "parent", "samples", "verdict", "created", "weights")
    for manifest in reversed(manifests):
        live = "live" + (" (held)" if state.held else "") if manifest.number == state.live else ""
        verdict = manifest.verdict
        said = "" if verdict is None else "accepted" if verdict.accepted else f"rejected: {verdict.reason}"
        created = datetime.datetime.fromtimestamp(manifest.created).isoformat(sep=" ", timespec="seconds")
        samples = str(sum(len(batch.samples) for batch in manifest.batches))
        row = (str(manifest.number), live, str(manifest.parent or 0), samples, said, created)
        table.add_row(*row, manifest.weights_sha256[:12])
    Console().print(table)


@app.command()
def show(number: int, home: Home = DEFAULT_HOME, line: Line = None) -> None:
    """The whole manifest, as JSON."""
    addresses = find(home)
    manifest = _registry(addresses).manifest(line or addresses.settings.line.name, number)
    typer.echo(msgspec.json.format(msgspec.json.encode(manifest)).decode())


@app.command()
def rollback(
    number: Annotated[int | None, typer.Argument(help="Default: the accepted version before the live one.")] = None,
    home: Home = DEFAULT_HOME,
    line: Line = None,
) -> None:
    """Serve an older version and hold it.

    0 is the base model. Learning goes on, but no newer version goes live until `lifelong versions promote`.
    """
    addresses = find(home)
    name = line or addresses.settings.line.name
    registry = _registry(addresses)
    _tell(addresses, registry, name, registry.rollback(name, number), "rolled-back")


@app.command()
def promote(
    number: Annotated[int | None, typer.Argument(help="Default: the newest accepted version.")] = None,
    home: Home = DEFAULT_HOME,
    line: Line = None,
) -> None:
    """Serve the newest version, or the one that is named.

    Without a number: the newest accepted version goes live, and newer ones follow as they come. The usual state.

    With one: that version, whatever the gate said of it, is live and held until the next `promote` or `rollback`.

    If it were not held, the next version to be learned would replace it within seconds.
    """
    addresses = find(home)
    name = line or addresses.settings.line.name
    registry = _registry(addresses)
    state = registry.release(name) if number is None else registry.hold(name, number)
    _tell(addresses, registry, name, state, "promoted")


def _tell(addresses: Addresses, registry: Registry, line: str, state: PointerState, change: Change) -> None:
    """The user first: it is done, even where Kafka cannot be told of it."""
    key = version_key(line, state.live)
    if state.held:
        typer.echo(f"{key} is live and held: newer versions wait until `lifelong versions promote`")
    else:
        typer.echo(f"{key} is live; newer versions follow")
    if state.live:
        event = version_event(registry.manifest(line, state.live), change, time.time())
    else:
        student = line == addresses.settings.line.student
        event = VersionEvent(line, 0, "student" if student else "active", change, time.time())
    sink = KafkaSink(addresses.settings.kafka)
    try:
        sink.send(topics.VERSIONS.name, encode(event), key=key.encode())
        sink.flush()
    finally:
        sink.close()
