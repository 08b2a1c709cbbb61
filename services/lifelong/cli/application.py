"""``lifelong publish | ask | feedback | outputs``: what an application does, from a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from lifelong.cli.addresses import DEFAULT_HOME, Home, find
from lifelong.client import Client
from lifelong.contracts.events import EVENT_TYPES, Document, EventData, Feedback, Message
from lifelong.errors import DecodeError

Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def register(app: typer.Typer) -> None:
    for command in (publish, ask, feedback, outputs):
        app.command()(command)


def _client(home: Path) -> Client:
    addresses = find(home)
    return Client(kafka=addresses.settings.kafka, http=addresses.http, source="lifelong.cli")


def publish(
    text: Annotated[str | None, typer.Argument(help="A document; '-' reads it from standard input.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(help='JSON lines: {"type": "lifelong.feedback", "data": {...}}, for any type of event.'),
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Publish a document, or a file of events."""
    if (text is None) == (file is None):
        raise typer.BadParameter("give a text or --file, one of them")
    events = _events(file) if file is not None else [Document(text=sys.stdin.read() if text == "-" else str(text))]
    with _client(home) as client:
        for event_id in client.publish(*events):
            typer.echo(event_id)


def _events(file: Path) -> list[EventData]:
    events: list[EventData] = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            envelope = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
            name = msgspec.json.decode(envelope["type"], type=str)
            events.append(msgspec.json.decode(envelope["data"], type=EVENT_TYPES[name]))
        except (msgspec.DecodeError, KeyError) as error:
            raise DecodeError("bad-data", f"{file}:{number}: {error!r}") from error
    return events


def ask(
    question: str,
    model: Annotated[str, typer.Option(help="A line, or LINE@NUMBER for one version.")] = "lifelong",
    memory: Annotated[bool, typer.Option(help="Whether memory may be looked up.")] = True,
    max_tokens: int = 128,
    temperature: float = 0.0,
    user: str | None = None,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> None:
    """Ask the model."""
    with _client(home) as client:
        answer = client.ask(
            question, model=model, memory=memory, max_tokens=max_tokens, temperature=temperature, user=user
        )
    if json:
        typer.echo(msgspec.json.encode(answer).decode())
        return
    typer.echo(answer.text)
    memories = f", {len(answer.memories)} memories" if answer.memories else ""
    typer.secho(f"[{answer.version}{memories}, output {answer.output_id}]", dim=True, err=True)


def feedback(
    question: str,
    correction: Annotated[str | None, typer.Option(help="What the answer should have been.")] = None,
    answer: Annotated[str | None, typer.Option(help="What the answer was.")] = None,
    rating: Annotated[float | None, typer.Option(min=-1, max=1, help="How good the answer was.")] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Correct or rate an answer to a question."""
    if correction is None and (rating is None or answer is None):
        raise typer.BadParameter("give --correction, or --answer with --rating")
    data = Feedback(messages=(Message("user", question),), answer=answer, correction=correction, rating=rating)
    with _client(home) as client:
        typer.echo(client.publish(data)[0])


def outputs(
    from_beginning: Annotated[bool, typer.Option(help="All that are kept, not only what comes now.")] = False,
    idle_seconds: Annotated[float | None, typer.Option(help="End when nothing came for so long.")] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Every answer as it is given, one JSON a line."""
    with _client(home) as client:
        for output in client.outputs(from_beginning=from_beginning, idle_seconds=idle_seconds):
            typer.echo(msgspec.json.encode(output).decode())
