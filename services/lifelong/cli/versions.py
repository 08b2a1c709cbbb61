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
from lifelong.config.loading import load
from lifelong.contracts import topics
from lifelong.contracts.codec import encode
from lifelong.contracts.versions import Change, Manifest, VersionEvent, version_event, version_key
from lifelong.model.settings import ModelSettings
from lifelong.registry.artifacts import open_store
from lifelong.registry.base import PointerState
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry
from lifelong.runtime.clock import SystemClock
from lifelong.stream.kafka import KafkaSink, KafkaSource

app = typer.Typer(help="The versions of the model.", no_args_is_help=True)

Line = Annotated[str | None, typer.Option(help="Which line; the student's is NAME-student.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


class _Model(msgspec.Struct, frozen=True):
    model: ModelSettings = ModelSettings()


def open_registry(addresses: Addresses) -> Registry:
    settings = addresses.settings
    return Registry(open_store(settings.artifacts), RedisPointers(settings.redis.url), SystemClock())


@app.command("list")
def list_versions(home: Home = DEFAULT_HOME, line: Line = None, json: Json = False) -> None:
    """All versions, newest first, and which one is live.

    In nats a token: the loss of the new samples before they were learnt, and what earlier tasks have lost.
    """
    addresses = find(home)
    registry = open_registry(addresses)
    name = line or addresses.settings.line.name
    state, manifests = registry.state(name), registry.versions(name)
    if json:
        typer.echo(msgspec.json.encode({"state": state, "versions": manifests}).decode())
        return
    table = Table("version", "", "parent", "samples", "verdict", "created", "loss", "forgotten", "weights")
    for manifest in reversed(manifests):
        live = "live" + (" (held)" if state.held else "") if manifest.number == state.live else ""
        verdict = manifest.verdict
        said = "" if verdict is None else "accepted" if verdict.accepted else f"rejected: {verdict.reason}"
        created = datetime.datetime.fromtimestamp(manifest.created).isoformat(sep=" ", timespec="seconds")
        num_refused = sum(len(part.samples) for part in manifest.refused)
        samples = f"{manifest.num_learnt}" + (f" ({num_refused} refused)" if num_refused else "")
        loss, forgotten = _nats(manifest, "loss_before_nats"), _nats(manifest, "forgetting_nats")
        row = (str(manifest.number), live, str(manifest.parent or 0), samples, said, created)
        table.add_row(*row, loss, forgotten, manifest.weights_sha256[:12])
    Console().print(table)


def _nats(manifest: Manifest, name: str) -> str:
    value = manifest.metrics.get(name)
    return "" if value is None else f"{value:.2f}"


@app.command()
def show(number: int, home: Home = DEFAULT_HOME, line: Line = None) -> None:
    """The whole manifest, as JSON."""
    addresses = find(home)
    manifest = open_registry(addresses).manifest(line or addresses.settings.line.name, number)
    typer.echo(msgspec.json.format(msgspec.json.encode(manifest)).decode())


@app.command()
def verify(
    number: int,
    from_base: Annotated[
        bool, typer.Option(help="Train all of it again, and not only since the nearest version whose files are there.")
    ] = False,
    home: Home = DEFAULT_HOME,
    line: Line = None,
    json: Json = False,
) -> None:
    """Train a version again from the events that its manifest claims, and compare the bytes.

    Exit code 1: they differ. Equal bytes can be expected on the same kind of CPU with the same libraries.
    """
    # Here, because it brings the model with it, which no other command needs.
    from lifelong.model.base import load_base
    from lifelong.trainer.history import History
    from lifelong.trainer.verify import verify as train_again

    addresses = find(home)
    settings = addresses.settings
    registry = open_registry(addresses)
    manifest = registry.manifest(line or settings.line.name, number)
    if manifest.kind != "active":
        raise typer.BadParameter(f"{version_key(manifest.line, number)} was distilled: only what the trainer learnt")
    history = History(lambda: KafkaSource(settings.kafka, [topics.SAMPLES.name]))
    result = train_again(registry, manifest, history, load(_Model).model, load_base, from_base=from_base)
    start = version_key(manifest.line, result.start.number if result.start else 0)
    if json:
        found = {
            "version": version_key(manifest.line, number),
            "from": start,
            "batches": [batch.number for batch in result.batches],
            "samples": result.num_samples,
            "differences": result.differences,
            "excuses": result.excuses,
            "seconds": result.seconds,
        }
        typer.echo(msgspec.json.encode(found).decode())
        raise typer.Exit(1 if result.differences else 0)
    did = f"{len(result.batches)} micro-batches, {result.num_samples} samples from {start} on, {result.seconds:.1f} s"
    if not result.differences:
        typer.echo(f"{version_key(manifest.line, number)} is what its events make of it: {did}")
        return
    typer.echo(f"{version_key(manifest.line, number)} came out otherwise ({did}):")
    for text in result.differences + result.excuses:
        typer.echo(f"  {text}")
    raise typer.Exit(1)


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
    registry = open_registry(addresses)
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
    registry = open_registry(addresses)
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
