"""``lifelong publish | ask | feedback | forget | outputs``: what an application does, from a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from lifelong.cli.addresses import DEFAULT_HOME, Home, find
from lifelong.client import Client
from lifelong.contracts.events import EVENT_TYPES, Document, EventData, Feedback, Forget, Message
from lifelong.errors import DecodeError

Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def register(app: typer.Typer) -> None:
    for command in (publish, ask, feedback, forget, outputs):
        app.command()(command)


def _client(home: Path, api_key: str | None = None) -> Client:
    addresses = find(home)
    return Client(kafka=addresses.settings.kafka, http=addresses.http, source="lifelong.cli", api_key=api_key)


def publish(
    text: Annotated[str | None, typer.Argument(help="A document; '-' reads it from standard input.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help='JSON lines: {"type": "lifelong.fact", "data": {...}}, for any type of event.',
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Publish a document, or a file of events; prints their ids.

    Of a file that has a mistake nothing is published.
    """
    if (text is None) == (file is None):
        raise typer.BadParameter("give a text or --file, one of them")
    events = read_events(file) if file is not None else [Document(text=sys.stdin.read() if text == "-" else str(text))]
    _publish(home, events)


def _publish(home: Path, events: Sequence[EventData]) -> None:
    with _client(home) as client:
        try:
            ids = client.publish(*events)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    for event_id in ids:
        typer.echo(event_id)


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    data: msgspec.Raw


def read_events(file: Path) -> list[EventData]:
    """
    Raises:
        DecodeError: names the file, the line and what is wrong with it.
    """
    events: list[EventData] = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            envelope = msgspec.json.decode(line, type=_Line)
            if envelope.type not in EVENT_TYPES:
                raise DecodeError(
                    "unknown-type", f"{file}:{number}: {envelope.type!r}; known are {', '.join(EVENT_TYPES)}"
                )
            events.append(msgspec.json.decode(envelope.data, type=EVENT_TYPES[envelope.type]))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DecodeError("bad-data", f"{file}:{number}: {error}") from error
    return events


def ask(
    question: str,
    model: Annotated[
        str | None, typer.Option(help="A line, or LINE@NUMBER for one version. Default: the live version.")
    ] = None,
    memory: Annotated[bool, typer.Option(help="Whether memory may be looked up.")] = True,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of the answer.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0: always the most likely token.")] = 0.0,
    user: Annotated[str | None, typer.Option(help="Who asks: their own memories may then be used.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="LIFELONG_API_KEY", help="If the server asks for one.")] = None,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> None:
    """Ask the model."""
    with _client(home, api_key) as client:
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
    """Correct or rate an answer to a question; prints the id of the event."""
    if correction is None and (rating is None or answer is None):
        raise typer.BadParameter("give --correction, or --answer with --rating")
    data = Feedback(messages=(Message("user", question),), answer=answer, correction=correction, rating=rating)
    _publish(home, [data])


def forget(
    event_ids: Annotated[list[str] | None, typer.Argument(help="Ids of events, as `publish` printed them.")] = None,
    user: Annotated[str | None, typer.Option(help="All that is this user's.")] = None,
    at_once: Annotated[
        bool, typer.Option(help="Answer from before it was learnt until it is relearnt without: knows less meanwhile.")
    ] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Take something out again: from memory at once, from the weights as soon as they are relearnt without it.

    Prints the id of the event; `lifelong lineage --event` shows when what it names was forgotten.
    """
    if not event_ids and user is None:
        raise typer.BadParameter("give ids of events, or --user")
    _publish(home, [Forget(event_ids=tuple(event_ids or ()), user=user, at_once=at_once)])


def outputs(
    from_beginning: Annotated[bool, typer.Option(help="All that are kept, not only what comes now.")] = False,
    idle_seconds: Annotated[float | None, typer.Option(help="End when nothing came for so long.")] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Every answer as it is given, one JSON a line."""
    with _client(home) as client:
        for output in client.outputs(from_beginning=from_beginning, idle_seconds=idle_seconds):
            typer.echo(msgspec.json.encode(output).decode())
