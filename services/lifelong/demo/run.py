"""The demonstration from start to end: a stack of its own, the story, the summary."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from lifelong.demo.story import Addresses, Story
from lifelong.demo.summary import Summary
from lifelong.local.stack import LocalStack
from lifelong.local.status import StackStatus

# The student's round waits for a quiet stream; a visitor should not.
_SETTINGS = {"LIFELONG_DISTILLER__IDLE_SECONDS": "2", "LIFELONG_DISTILLER__STEPS_PER_ROUND": "8"}


def run_demo(
    home: Path,
    *,
    once: bool,
    num_facts: int,
    num_documents: int,
    create_topics: Callable[[str], None],
    summary_file: Path | None,
) -> bool:
    """Whether learning was seen. Everything is stopped when this returns."""
    console = Console(highlight=False)
    started = time.monotonic()
    LocalStack(home).down()
    shutil.rmtree(home, ignore_errors=True)

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim] {line}" if line else "", soft_wrap=True)

    stack = LocalStack(
        home,
        settings=_SETTINGS,
        create_topics=create_topics,
        progress=lambda step: say(f"starting: {step}"),
    )
    # A kill is a Ctrl-C: whichever way this ends, nothing is left running. A shell that starts it in the background has
    # Ctrl-C ignored, hence both.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    seen = False
    try:
        with stack:
            status = stack.status()
            say(f"all processes are ready; HTTP at {status.http}/v1, Kafka at {status.kafka}\n")
            story = Story(_addresses(status), say, num_facts=num_facts, num_documents=num_documents)
            try:
                summary = story.tell()
            finally:
                story.close()
            _show(console, summary)
            if summary_file is not None:
                summary_file.write_bytes(msgspec.json.format(msgspec.json.encode(summary)) + b"\n")
            seen = summary.learning_was_seen()
            if not once:
                _stay(console, home, status)
    except KeyboardInterrupt:
        console.print("\nstopped")
    return seen


def _addresses(status: StackStatus) -> Addresses:
    metrics = {process.name: process.metrics for process in status.processes if process.metrics}
    return Addresses(status.kafka, status.http, metrics)


def _show(console: Console, summary: Summary) -> None:
    table = Table("", "before", "memory only", "learned", title="\nquestions answered right")
    num = len(summary.asked)
    counts = (summary.num_before, summary.num_from_memory, summary.num_after)
    table.add_row("", *(f"{count} of {num}" for count in counts))
    console.print(table)
    console.print(f"weights    {summary.version_before} → {summary.version_after}", highlight=False)
    console.print(f"versions   {summary.versions_promoted} promoted, {summary.versions_rejected} rejected")
    console.print(f"freshness  {summary.freshness_seconds} s for a lone event")
    console.print(f"student    {summary.student or 'no round yet'}")
    if not summary.learning_was_seen():
        console.print("[red]learning was not seen[/red]")


def _stay(console: Console, home: Path, status: StackStatus) -> None:
    console.print(
        "\n[bold]It stays up.[/bold] In another terminal:\n"
        f"  export LIFELONG_HOME={home}\n"
        "  .venv/bin/lifelong ask 'Who won the 2031 chess olympiad?'\n"
        "  .venv/bin/lifelong feedback 'Who won the 2031 chess olympiad?' --correction 'Iceland.'\n"
        "  .venv/bin/lifelong ask --no-memory 'Who won the 2031 chess olympiad?'\n"
        "  .venv/bin/lifelong versions list\n"
        f"  curl {status.http}/v1/models\n"
        "Ctrl-C stops everything.",
        soft_wrap=True,
    )
    threading.Event().wait()
