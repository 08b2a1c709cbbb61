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
from lifelong.contracts.versions import Manifest, VersionEvent, version_key
from lifelong.registry.artifacts import open_store
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
    """Newest first."""
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
    manifest: Manifest = _registry(addresses).manifest(line or addresses.settings.line.name, number)
    typer.echo(msgspec.json.format(msgspec.json.encode(manifest)).decode())


@app.command()
def rollback(
    number: Annotated[int | None, typer.Argument(help="Default: the accepted version before the live one.")] = None,
    home: Home = DEFAULT_HOME,
    line: Line = None,
) -> None:
    """Serve an older version and hold it there until `promote`. 0 is the base model. Learning goes on."""
    addresses = find(home)
    name = line or addresses.settings.line.name
    state = _registry(addresses).rollback(name, number)
    _announce(addresses, name, state.live, "rolled-back")
    typer.echo(f"{version_key(name, state.live)} is live and held; `lifelong versions promote` lets go")


@app.command()
def promote(
    number: Annotated[int | None, typer.Argument(help="Default: the newest accepted version.")] = None,
    home: Home = DEFAULT_HOME,
    line: Line = None,
) -> None:
    """Serve this version. Without a number a hold ends, and newer versions go live again as they come."""
    addresses = find(home)
    name = line or addresses.settings.line.name
    registry = _registry(addresses)
    state = registry.release(name) if number is None else registry.rollback(name, number)
    _announce(addresses, name, state.live, "promoted")
    typer.echo(f"{version_key(name, state.live)} is live{' and held' if state.held else ''}")


def _announce(addresses: Addresses, line: str, number: int, change: str) -> None:
    kind = "student" if line.endswith("-student") else "active"
    event = msgspec.convert(
        {"line": line, "number": number, "kind": kind, "change": change, "time": time.time()}, VersionEvent
    )
    sink = KafkaSink(addresses.settings.kafka)
    try:
        sink.send(topics.VERSIONS.name, encode(event), key=version_key(line, number).encode())
        sink.flush()
    finally:
        sink.close()
