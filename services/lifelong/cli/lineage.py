"""``lifelong lineage``: which events an answer comes from, and which versions have learnt an event."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
import typer

from lifelong.cli.addresses import DEFAULT_HOME, Addresses, Home, find
from lifelong.contracts import topics
from lifelong.contracts.requests import Output
from lifelong.contracts.versions import parse_version_key, version_key
from lifelong.errors import LifelongError
from lifelong.inference.outputs import OutputStore
from lifelong.lineage import EventLineage, Place, VersionLineage, of_event, of_version
from lifelong.registry.artifacts import open_store
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry
from lifelong.stream.kafka import KafkaSource


def register(app: typer.Typer) -> None:
    app.command()(lineage)


class UnknownOutputError(LifelongError):
    """No answer with this id is kept."""


def lineage(
    output: Annotated[str | None, typer.Argument(help="Id of an answer, or a version as NAME@NUMBER.")] = None,
    event: Annotated[str | None, typer.Option(help="Id of an event: which versions have learnt it.")] = None,
    at: Annotated[str | None, typer.Option(help="The same by its place in the events topic, PARTITION:OFFSET.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many micro-batches to list, newest first.")] = 10,
    home: Home = DEFAULT_HOME,
    line: Annotated[str | None, typer.Option(help="Of which line, for --event and --at.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """From an answer to the events it comes from, and back."""
    if sum(given is not None for given in (output, event, at)) != 1:
        raise typer.BadParameter("give the id of an answer, --event or --at, one of them")
    addresses = find(home)
    settings = addresses.settings
    registry = Registry(open_store(settings.artifacts), RedisPointers(settings.redis.url))
    if output is None:
        found = of_event(
            registry,
            registry.newest(line or settings.line.name),
            lambda: KafkaSource(settings.kafka, [topics.SAMPLES.name]),
            event_id=event,
            place=_place(at) if at else None,
        )
        typer.echo(msgspec.json.encode(found).decode() if json else _tell_event(found, line or settings.line.name))
        return
    answer = None if "@" in output else _find(addresses, output)
    name, number = parse_version_key(answer.version if answer else output)
    version = of_version(registry, registry.manifest(name, number), last) if number else None
    if json:
        typer.echo(msgspec.json.encode({"output": answer, "version": version}).decode())
        return
    if answer is not None:
        typer.echo(f"output {answer.id} is by {answer.version} on {answer.base}")
        for memory in answer.memories:
            typer.echo(f"  read memory {memory.id} of event {memory.event_id} (score {memory.score:.2f})")
    typer.echo(_tell_version(version) if version else f"{name}@0 is the base, it has learnt no event")


def _find(addresses: Addresses, output_id: str) -> Output:
    settings = addresses.settings
    found = OutputStore(settings.redis.url, settings.line.name, 1).get(output_id)
    if found is None:
        raise UnknownOutputError(
            f"no answer with id {output_id!r} is kept (inference.output_days); its version is in the outputs topic: "
            "ask with NAME@NUMBER"
        )
    return found


def _place(text: str) -> Place:
    if not (match := re.fullmatch(r"(\d+):(\d+)", text)):
        raise typer.BadParameter(f"{text!r}: expected PARTITION:OFFSET", param_hint="--at")
    return Place(int(match[1]), int(match[2]))


def _tell_version(version: VersionLineage) -> str:
    taken = ", ".join(f"{partition}:0-{to}" for partition, to in sorted(version.watermarks.items()))
    counts = ", ".join(f"{number} {what}" for what, number in sorted(version.counts.items()))
    lines = [
        f"{version_key(version.line, version.number)} has taken in {topics.EVENTS.name} {taken} (partition:offsets)",
        f"  {counts}",
    ]
    for lesson in version.lessons:
        places = " ".join(f"{place.partition}:{place.offset}" for place in lesson.trained) or "nothing"
        held_out, refused = (
            " ".join(f"{place.partition}:{place.offset}" for place in places)
            for places in (lesson.held_out, lesson.refused)
        )
        lines.append(
            f"  in {version_key(version.line, lesson.version)} {'' if lesson.accepted else 'rejected: '}{places}"
            + (f"; held out {held_out}" if held_out else "")
            + (f"; refused {refused}" if refused else "")
        )
    if version.num_lessons_left:
        lines.append("  and what came before (--last shows more)")
    return "\n".join(lines)


def _tell_event(found: EventLineage, line: str) -> str:
    place = f"{found.place.topic} partition {found.place.partition} offset {found.place.offset}"
    lines = [f"event {found.event_id} is at {place}"]
    if found.outcome != "sample":
        lines.append(f"  no sample was made of it: {found.outcome}" + (f", {found.detail}" if found.detail else ""))
    elif found.first is None:
        lines.append("  it waits to be learnt")
    else:
        lines.append(f"  it came in the micro-batch of {version_key(line, found.first)}: {found.fate}")
    if found.versions:
        first, last = version_key(line, found.versions[0]), version_key(line, found.versions[-1])
        lines.append(f"  {len(found.versions)} versions have learnt it, {first} to {last}")
    if found.forgotten_in:
        lines.append(f"  it was forgotten in {version_key(line, found.forgotten_in)}")
    return "\n".join(lines)
