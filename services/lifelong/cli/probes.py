"""``lifelong probes``: what no version may lose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from lifelong.cli.addresses import DEFAULT_HOME, Home, find
from lifelong.cli.versions import open_registry
from lifelong.client import PROBES_KEY, Client
from lifelong.contracts.events import Forget, Probe
from lifelong.contracts.samples import Sample
from lifelong.contracts.versions import version_key
from lifelong.errors import DecodeError, LifelongError

app = typer.Typer(help="Questions whose answers no version may lose.", no_args_is_help=True)

# Written by the trainer beside the weights; see lifelong.trainer.state, which would bring the model with it.
PROBES_FILE = "probes.jsonl"


class UnknownProbeError(LifelongError):
    """The newest version has no probe of this event."""


@app.command()
def add(
    question: Annotated[str | None, typer.Option(help="As a user would ask it.")] = None,
    answer: Annotated[str | None, typer.Option(help="As the model should answer.")] = None,
    task: Annotated[str, typer.Option(help="Probes of one task are judged together.")] = "probe",
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help='JSON lines: {"question": …, "answer": …, "task": …}.'),
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Judge every version from the next one on by this too; prints the ids, to remove it by.

    It is never learnt. A version that makes it less likely is rejected.
    """
    if (file is None) == (question is None or answer is None):
        raise typer.BadParameter("give --question and --answer, or --file")
    if file is not None:
        probes = read_probes(file)
    else:
        assert question is not None
        assert answer is not None
        probes = [Probe(question, answer, task)]
    with _client(home) as client:
        try:
            ids = client.publish(*probes)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    for event_id in ids:
        typer.echo(event_id)


@app.command("list")
def list_probes(
    home: Home = DEFAULT_HOME, json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Those by which the newest version was judged. One that was just added is there from the next version on."""
    key, probes = _probes(home)
    if json:
        found = [{"id": p.event_id, "task": p.task, "question": _said(p)[0], "answer": _said(p)[1]} for p in probes]
        typer.echo(msgspec.json.encode({"version": key, "probes": found}).decode())
        return
    table = Table("id", "task", "question", "answer")
    for probe in probes:
        table.add_row(probe.event_id, probe.task, *_said(probe))
    Console().print(table)


@app.command()
def remove(event_id: str, home: Home = DEFAULT_HOME) -> None:
    """Judge no version by it any more, from the next one on."""
    _, probes = _probes(home)
    if event_id not in {probe.event_id for probe in probes}:
        raise UnknownProbeError(f"{event_id!r}: `lifelong probes list` shows the ids")
    with _client(home) as client:
        client.publish(Forget(event_ids=(event_id,)), key=PROBES_KEY)


def read_probes(file: Path) -> list[Probe]:
    """
    Raises:
        DecodeError: names the file, the line and what is wrong with it.
    """
    probes = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                probes.append(msgspec.json.decode(line, type=Probe))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise DecodeError("bad-data", f"{file}:{number}: {error}") from error
    return probes


def _probes(home: Path) -> tuple[str, list[Sample]]:
    """(the newest version, its probes)."""
    addresses = find(home)
    registry = open_registry(addresses)
    line = addresses.settings.line.name
    newest = registry.newest(line)
    if newest is None:
        return version_key(line, 0), []
    data = registry.weights(newest, PROBES_FILE) if PROBES_FILE in newest.files else b""
    return version_key(line, newest.number), msgspec.json.Decoder(Sample).decode_lines(data)


def _said(probe: Sample) -> tuple[str, str]:
    question, answer = probe.messages
    return question.content, answer.content


def _client(home: Path) -> Client:
    addresses = find(home)
    return Client(kafka=addresses.settings.kafka, http=addresses.http, source="lifelong.cli")
