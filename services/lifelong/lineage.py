"""From an answer to the events that taught it, and back.

A version is a chain of micro-batches, and their manifests name each sample by the place of its event: partition and
offset. So from a version to its events there is nothing to be searched; from the id of an event to its place there is.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Literal

import msgspec

from lifelong.contracts import topics
from lifelong.contracts.codec import decode
from lifelong.contracts.samples import Outcome, SampleRecord, must_be_forgotten
from lifelong.contracts.versions import Manifest
from lifelong.errors import DecodeError, LifelongError
from lifelong.registry.chain import ancestors
from lifelong.registry.registry import Registry
from lifelong.stream.base import Partition, Source

Fate = Literal["trained", "held out", "rejected", "left out", "pending"]

_POLL_SECONDS = 0.5
_MAX_RECORDS = 2000


class UnknownEventError(LifelongError):
    """No event has this id or stands at this place, or it is too long ago."""


class Place(msgspec.Struct, frozen=True, order=True):
    """Where an event is."""

    partition: int
    offset: int
    topic: str = topics.EVENTS.name

    @property
    def key(self) -> tuple[int, int]:
        return self.partition, self.offset


class Lesson(msgspec.Struct, frozen=True):
    """One micro-batch of a version."""

    version: int
    """That learnt it first."""
    accepted: bool
    trained: tuple[Place, ...]
    """If it was not accepted: what was refused."""
    held_out: tuple[Place, ...]
    refused: tuple[Place, ...] = ()
    """Where the others were accepted."""


class VersionLineage(msgspec.Struct, frozen=True):
    line: str
    number: int
    base: str
    watermarks: dict[int, int]
    """Partition of the events topic → first offset that is not in the version; all before were taken in."""
    counts: dict[str, int]
    lessons: list[Lesson]
    """Newest first; as many as were asked for."""
    num_lessons_left: int
    """Older ones that are not among them, at least."""


class EventLineage(msgspec.Struct, frozen=True):
    event_id: str | None
    place: Place
    outcome: Outcome
    """What the collector made of it; all but ``sample`` teach nothing."""
    detail: str | None
    fate: Fate
    """``left out``: contradicted by a later sample of its micro-batch, not learnable, or forgotten before."""
    first: int | None
    """Number of the version whose micro-batch it came in; ``None``: none yet."""
    versions: list[int]
    """All that have learnt it, ascending; none for what was not trained on."""
    forgotten_in: int | None
    """Number of the version from which on it is gone."""


def of_version(registry: Registry, manifest: Manifest, num_lessons: int) -> VersionLineage:
    """What the version has learnt, the newest ``num_lessons`` micro-batches one by one.

    Raises UnknownVersionError, CorruptVersionError.
    """
    batches = _batches(registry, manifest)
    lessons = [_lesson(batch) for batch, _ in zip(batches, range(num_lessons), strict=False)]
    oldest = lessons[-1].version if lessons else 0
    return VersionLineage(
        manifest.line,
        manifest.number,
        manifest.base,
        manifest.watermarks,
        manifest.counts,
        lessons,
        max(0, oldest - 1),
    )


def of_event(
    registry: Registry,
    newest: Manifest | None,
    open_source: Callable[[], Source],
    *,
    event_id: str | None = None,
    place: Place | None = None,
) -> EventLineage:
    """What became of an event, by its id or its place (quicker: the topic need not be searched from its beginning).

    Args:
        newest: version of the line.
        open_source: opens a reader of the samples topic.

    Raises:
        UnknownEventError. UnreachableError. UnknownVersionError, CorruptVersionError.
    """
    chain = list(ancestors(registry, newest))[::-1] if newest else []
    batches = [batch for version in chain for batch in _steps(registry, version)]
    with closing(open_source()) as source:
        if place is None:
            record = _find(source, {}, lambda r: r.event_id == event_id and r.outcome != "duplicate")
        else:
            index, wanted = _index(batches, place), place.key
            before = batches[index - 1].positions if index else {}
            record = _find(source, before, lambda r: (r.source_partition, r.to_offset - 1) == wanted)
        if record is None:
            what = f"id {event_id!r}" if place is None else f"place {place.partition}:{place.offset}"
            raise UnknownEventError(f"no event with the {what} is in {topics.SAMPLES.name}, or it is too long ago")
        place = Place(record.source_partition, record.to_offset - 1)
        index = _index(batches, place)
        first = batches[index] if index < len(batches) else None
        fate = _fate(first, record)
        versions: list[int] = []
        without = None
        if first is not None and fate == "trained":
            relearnt = [version for version in chain if first.number in version.relearned]
            without = next((version for version in relearnt if _is_meant(source, batches, version, record)), None)
            # Those that had it until it was forgotten are ancestors of no version any more.
            numbers = without.relearned if without else [version.number for version in chain]
            versions = [number for number in numbers if number >= first.number]
    return EventLineage(
        record.event_id,
        place,
        record.outcome,
        record.detail,
        fate,
        first.number if first else None,
        versions,
        without.number if without else None,
    )


def _steps(registry: Registry, version: Manifest) -> list[Manifest]:
    """The micro-batches that lead to the version from its parent, oldest first."""
    return [*(registry.manifest(version.line, number) for number in version.relearned), version]


def _index(batches: Sequence[Manifest], place: Place) -> int:
    """Of the micro-batch whose source ranges have it; their number: none has."""
    return bisect.bisect_right(batches, place.offset, key=lambda batch: batch.watermarks.get(place.partition, 0))


def _find(source: Source, positions: Mapping[int, int], is_it: Callable[[SampleRecord], bool]) -> SampleRecord | None:
    return next((record for record in _records(source, positions) if is_it(record)), None)


def _is_meant(source: Source, batches: Sequence[Manifest], version: Manifest, record: SampleRecord) -> bool:
    """Whether it was this event, and not only another, that the version was made to forget."""
    before = batches[batches.index(version) - 1]
    left = {p: to for p, to in version.watermarks.items() if to > before.watermarks.get(p, 0)}
    for account in _records(source, before.positions):
        end = left.get(account.source_partition, 0)
        forget = account.forget if account.to_offset <= end else None
        if forget is not None and any(must_be_forgotten(sample, forget) for sample in record.samples):
            return True
        if account.to_offset >= end:
            left.pop(account.source_partition, None)
        if not left:
            break
    return False


def _records(source: Source, positions: Mapping[int, int]) -> Iterator[SampleRecord]:
    """All accounts from these positions on, or from what is left of them, to the end as it is now."""
    ends = source.end_positions()
    at = {p: max(first, positions.get(p.number, 0)) for p, first in source.first_positions().items()}
    source.seek(at)
    while any(at[partition] < end for partition, end in ends.items()):
        for record in source.poll(_POLL_SECONDS, _MAX_RECORDS):
            at[Partition(record.topic, record.partition)] = record.offset + 1
            with suppress(DecodeError):
                yield decode(record.value, SampleRecord)


def _batches(registry: Registry, manifest: Manifest) -> Iterator[Manifest]:
    """Newest first."""
    for version in ancestors(registry, manifest):
        yield version
        for number in reversed(version.relearned):
            yield registry.manifest(version.line, number)


def _lesson(manifest: Manifest) -> Lesson:
    accepted = manifest.verdict is None or manifest.verdict.accepted
    refused = {name for part in manifest.refused for name in part.samples} if accepted else set()
    samples = [name for batch in manifest.batches for name in batch.samples]
    held_out = [place for batch in manifest.batches for place in _places(batch.held_out)]
    return Lesson(
        manifest.number,
        accepted,
        tuple(_places([name for name in samples if name not in refused])),
        tuple(held_out),
        tuple(_places([name for name in samples if name in refused])),
    )


def _places(sample_ids: Sequence[str]) -> list[Place]:
    """Each event once, in the order of its samples."""
    parts = (sample_id.split("-") for sample_id in sample_ids)
    return list(dict.fromkeys(Place(int(partition), int(offset)) for partition, offset, _ in parts))


def _fate(first: Manifest | None, record: SampleRecord) -> Fate:
    if first is None:
        return "pending"
    ids = {sample.id for sample in record.samples}
    refused = {name for part in first.refused for name in part.samples}
    # Of an event with several samples some may have been let in.
    if ids & refused and not any((ids - refused) & set(batch.samples) for batch in first.batches):
        return "rejected"
    if any(ids & set(batch.samples) for batch in first.batches):
        return "trained" if first.verdict is None or first.verdict.accepted else "rejected"
    return "held out" if any(ids & set(batch.held_out) for batch in first.batches) else "left out"
