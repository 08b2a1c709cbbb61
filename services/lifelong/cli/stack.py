"""``lifelong up | down | status | demo``: everything on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from lifelong.cli.addresses import DEFAULT_HOME, Home
from lifelong.config.shared import KafkaSettings
from lifelong.demo.run import run_demo
from lifelong.local.stack import LocalStack
from lifelong.local.status import StackStatus
from lifelong.stream.admin import apply_topics

Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def register(app: typer.Typer) -> None:
    for command in (up, down, status, demo):
        app.command()(command)


def _create_topics(kafka: str) -> None:
    apply_topics(KafkaSettings(bootstrap_servers=kafka))


def up(
    home: Home = DEFAULT_HOME,
    kafka: Annotated[str | None, typer.Option(help="Use this Kafka (host:port) instead of one of our own.")] = None,
    redis: Annotated[str | None, typer.Option(help="Use this Redis (URL) instead of a Valkey of our own.")] = None,
    kafka_port: Annotated[int, typer.Option(help="0: any that is free.")] = 0,
    redis_port: Annotated[int, typer.Option(help="0: any that is free.")] = 0,
    http_port: Annotated[int, typer.Option(help="0: any that is free.")] = 0,
    json: Json = False,
) -> None:
    """Start Kafka, Valkey, the topics and the four processes, or whichever of them does not run."""
    console = Console(stderr=True)
    with console.status("starting") as spinner:
        stack = LocalStack(
            home,
            kafka=kafka,
            redis=redis,
            kafka_port=kafka_port,
            redis_port=redis_port,
            http_port=http_port,
            create_topics=_create_topics,
            progress=lambda step: spinner.update(f"starting: {step}"),
        )
        running = stack.up()
    _show(running, json)


def down(home: Home = DEFAULT_HOME) -> None:
    """Stop everything; data is kept, and `up` goes on from it."""
    LocalStack(home).down()


def status(home: Home = DEFAULT_HOME, json: Json = False) -> None:
    """Addresses, process states, the live version. Exit code 0 if all of it works."""
    found = LocalStack(home).status()
    _show(found, json)
    raise typer.Exit(0 if found.ready else 1)


def demo(
    once: Annotated[bool, typer.Option("--once", help="End by itself, with a summary; leave nothing behind.")] = False,
    home: Annotated[Path, typer.Option(help="Where its data goes; emptied first.")] = DEFAULT_HOME / "demo",
    facts: Annotated[int, typer.Option(min=2, max=100, help="Corrections to learn.")] = 6,
    documents: Annotated[int, typer.Option(min=0, max=90, help="Documents to read.")] = 10,
    summary: Annotated[Path | None, typer.Option(help="Write what was seen there, as JSON.")] = None,
) -> None:
    """Watch it learn: a real model, a real stream, before and after.

    With --once exits 0 only if learning was seen.
    """
    seen = run_demo(
        home, once=once, num_facts=facts, num_documents=documents, create_topics=_create_topics, summary_file=summary
    )
    raise typer.Exit(0 if seen else 1)


def _show(status: StackStatus, json: bool) -> None:
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(status)).decode())
        return
    console = Console()
    table = Table("process", "state", "metrics", "log")
    for process in status.processes:
        state = process.failure or (process.state if process.ready or process.state != "running" else "starting")
        table.add_row(process.name, state, process.metrics or "", process.log)
    console.print(table)
    for name, value in (("Kafka", status.kafka), ("Redis", status.redis), ("HTTP", f"{status.http}/v1")):
        console.print(f"{name:6} {value}")
    console.print(f"live   {status.live_version or '-'}")
