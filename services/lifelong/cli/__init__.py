"""The command line: nouns, then verbs. ``lifelong --help`` lists it."""

from __future__ import annotations

import sys

import typer

from lifelong.cli import application, lineage, probes, quarantine, settings, stack, topics, versions
from lifelong.errors import LifelongError

app = typer.Typer(
    name="lifelong",
    help="A large language model that keeps learning from your event stream while it serves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
stack.register(app)
application.register(app)
lineage.register(app)
settings.register(app)
app.add_typer(versions.app, name="versions")
app.add_typer(probes.app, name="probes")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(topics.app, name="topics")


def main() -> None:
    """The entry point. Errors that we raise on purpose are one line on standard error and exit code 1."""
    try:
        app()
    except LifelongError as error:
        sys.stderr.write(f"lifelong: {error}\n")
        sys.exit(1)
