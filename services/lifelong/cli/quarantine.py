"""``lifelong quarantine``: what the gate did not let in."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from lifelong.cli.addresses import DEFAULT_HOME, Home, find
from lifelong.cli.versions import open_registry
from lifelong.contracts.versions import version_key
from lifelong.registry.chain import batches_since

app = typer.Typer(help="What the gate did not let in.", no_args_is_help=True)


@app.command("list")
def list_refused(
    last: Annotated[int, typer.Option(min=1, help="So many at most, newest first.")] = 50,
    home: Home = DEFAULT_HOME,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """The smallest parts of micro-batches that were refused, and why; newest first.

    `lifelong lineage --event ID` shows one of the events. To let it in, publish it anew; to be rid of it, forget it.
    """
    addresses = find(home)
    registry, line = open_registry(addresses), addresses.settings.line.name
    newest = registry.newest(line)
    batches = batches_since(registry, newest, 0)[::-1] if newest else []
    found = [(version_key(line, batch.number), part) for batch in batches for part in batch.refused][:last]
    if json:
        rows = [
            {"version": key, "samples": part.samples, "events": part.events, "reason": part.reason}
            for key, part in found
        ]
        typer.echo(msgspec.json.encode(rows).decode())
        return
    table = Table("version", "events", "samples", "reason")
    for key, part in found:
        table.add_row(key, " ".join(part.events), " ".join(part.samples), part.reason)
    Console().print(table)
