"""What a version of the model is, and how the world hears of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import msgspec

Kind = Literal["active", "knowledge", "student"]
"""``active``: the adapter that learns online. ``knowledge``: what was consolidated. ``student``: a smaller model."""


class FileEntry(msgspec.Struct, frozen=True):
    sha256: str
    num_bytes: int


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Those that a manifest can hold: JSON has no NaN and no infinity, and null in their place cannot be read."""
    return {name: number for name, number in numbers.items() if math.isfinite(number)}


class Verdict(msgspec.Struct, frozen=True):
    """What the gate decided and why. Losses are in nats per token, lower is better."""

    accepted: bool
    reason: str
    scores: dict[str, float] = {}
    """``held_out_before``, ``held_out_after``, ``probes_before`` and so on."""


class Refused(msgspec.Struct, frozen=True):
    """Samples that the gate did not let in, the smallest such part of a micro-batch that was found."""

    samples: tuple[str, ...]
    """Their ids."""
    events: tuple[str, ...]
    """Ids of the events that they came of."""
    reason: str


class Batch(msgspec.Struct, frozen=True):
    """One micro-batch: the boundaries from which training can be repeated to the byte."""

    samples: tuple[str, ...]
    """Ids of the new samples, in the order they were trained on; those that were refused too."""
    held_out: tuple[str, ...] = ()
    replayed: tuple[str, ...] = ()
    num_steps: int = 0
    trigger: Literal["size", "age", "idle", "flush", "forget"] = "size"
    """``flush``: something is to be forgotten, and this comes before it. ``forget``: nothing new, something is gone."""


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version: its bytes, its place in the stream and its verdict. Written once, last, and never changed.

    A line is a chain of versions with growing numbers; each process that trains owns one line. The parent of a version
    is mostly the number before: not where that one was lost, or had to be left out.
    """

    line: str
    number: int
    parent: int | None
    kind: Kind
    base: str
    base_sha256: str
    epoch: int
    """The fencing epoch of the writer: a reader refuses a version whose epoch is lower than one it has seen."""
    created: float
    """Seconds since 1970."""
    weights_sha256: str
    """Over the names and bytes of all tensors; equal weights have equal hashes on every machine."""
    files: dict[str, FileEntry]
    """By file name in this version's folder, which ``folder`` names."""
    folder: str
    watermarks: dict[int, int]
    """Events partition → the first source offset that is not in this version."""
    positions: dict[int, int]
    """Samples partition → the offset to read on from."""
    counts: dict[str, int] = {}
    """Cumulative since the start of the line: samples ``trained``, ``held_out``, ``rejected``; events by outcome."""
    batches: tuple[Batch, ...] = ()
    """What this version learned beyond its parent."""
    tensors: dict[str, str] = {}
    """sha256 by tensor name."""
    metrics: dict[str, float] = {}
    verdict: Verdict | None = None
    newest_event_time: float | None = None
    """Seconds since 1970: time of the newest event learned."""
    settings: dict[str, str] = {}
    """What decides the bytes besides the data: seed, dtype, threads, optimizer, learning rate …"""
    teacher: str | None = None
    """For a student: ``line@number`` it was distilled from."""
    relearned: tuple[int, ...] = ()
    """Numbers of the versions whose micro-batches were learnt again, on top of ``parent``, without what had to be
    forgotten. They themselves are not ancestors of this version, and their files are gone."""
    refused: tuple[Refused, ...] = ()
    """Of the samples of its micro-batch: in quarantine, no version has learnt them."""

    @property
    def num_learnt(self) -> int:
        """Samples of its own micro-batch that were let in."""
        if self.verdict is not None and not self.verdict.accepted:
            return 0
        return sum(len(batch.samples) for batch in self.batches) - sum(len(part.samples) for part in self.refused)


Change = Literal["committed", "rejected", "promoted", "rolled-back"]


class VersionEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of one record of the versions topic."""

    line: str
    number: int
    kind: Kind
    change: Change
    time: float
    """Seconds since 1970."""
    parent: int | None = None
    weights_sha256: str | None = None
    verdict: Verdict | None = None
    counts: dict[str, int] = {}
    newest_event_time: float | None = None
    num_samples: int = 0


def version_event(manifest: Manifest, change: Change, time: float) -> VersionEvent:
    return VersionEvent(
        line=manifest.line,
        number=manifest.number,
        kind=manifest.kind,
        change=change,
        time=time,
        parent=manifest.parent,
        weights_sha256=manifest.weights_sha256,
        verdict=manifest.verdict,
        counts=manifest.counts,
        newest_event_time=manifest.newest_event_time,
        num_samples=manifest.num_learnt,
    )


def version_key(line: str, number: int) -> str:
    """``line@number``: how a version is named in requests, outputs, logs and record keys."""
    return f"{line}@{number}"


def parse_version_key(key: str) -> tuple[str, int | None]:
    """``line@number`` → (line, number); ``line`` → (line, None).

    Raises:
        ValueError: what follows ``@`` is no number.
    """
    line, _, number = key.rpartition("@")
    if not line:
        return key, None
    if not number.isascii() or not number.isdigit():
        raise ValueError(f"{key!r} is no version: expected NAME or NAME@NUMBER")
    return line, int(number)
