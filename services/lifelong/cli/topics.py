"""``lifelong topics``: create the topics, or check that they are as they should be."""

from __future__ import annotations

import typer

from lifelong.cli.addresses import DEFAULT_HOME, Home, find
from lifelong.stream.admin import apply_topics, check_topics

app = typer.Typer(help="The Kafka topics.", no_args_is_help=True)


@app.command()
def apply(home: Home = DEFAULT_HOME) -> None:
    """Create what is missing and set what differs."""
    for change in apply_topics(find(home).settings.kafka) or ["nothing to change"]:
        typer.echo(change)


@app.command()
def check(home: Home = DEFAULT_HOME) -> None:
    """Exit 1 and say what is wrong, if anything is."""
    problems = check_topics(find(home).settings.kafka)
    for problem in problems:
        typer.echo(problem)
    raise typer.Exit(1 if problems else 0)
