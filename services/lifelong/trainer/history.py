"""The samples topic, read again: for each micro-batch of the past, what was in it.

The boundaries are in the manifests. Between those of two micro-batches that follow each other stands, partition by
partition, all that the later one took in; read by the same rule of coverage it is the same again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from lifelong.contracts import topics
from lifelong.contracts.codec import decode
from lifelong.contracts.events import Forget
from lifelong.contracts.samples import Sample, SampleRecord, coverage, must_be_forgotten
from lifelong.contracts.versions import Manifest, version_key
from lifelong.errors import DecodeError, StreamError, StreamGapError
from lifelong.stream.base import Partition, Source
from lifelong.trainer.intake import canonical

_POLL_SECONDS = 0.5
_MAX_RECORDS = 2000


class Chapter(NamedTuple):
    """One micro-batch of the past."""

    manifest: Manifest
    """That has its boundaries: of the version that learnt it first."""
    samples: list[Sample]
    """All that came, in canonical order."""
    probes: list[Sample]
    forgets: list[Forget]
    outcomes: Counter[str]
    """Number of records by outcome."""

    def without(self, forgets: Sequence[Forget]) -> tuple[list[Sample], int]:
        """(the samples that none of these means, the number of others)."""
        kept = [s for s in self.samples if not any(must_be_forgotten(s, forget) for forget in forgets)]
        return kept, len(self.samples) - len(kept)


class History:
    """Args: open_source: opens another reader of the samples topic."""

    def __init__(self, open_source: Callable[[], Source]) -> None:
        self._open_source = open_source

    def reaches_back_to(self, batches: Sequence[Manifest]) -> int:
        """The index of the first of these micro-batches, that follow each other from the beginning of a line, from
        which on all is still there. Their number: none is."""
        with closing(self._open_source()) as source:
            firsts = {partition.number: at for partition, at in source.first_positions().items()}
        begin: Mapping[int, int] = {}
        for index, manifest in enumerate(batches):
            if all(begin.get(partition, 0) >= first for partition, first in firsts.items()):
                return index
            begin = manifest.positions
        return len(batches)

    def chapters(self, before: Manifest | None, batches: Sequence[Manifest]) -> Generator[Chapter, None, None]:
        """These micro-batches, which follow each other and ``before`` (``None``: they are the first of their line).

        To be closed, for it holds a reader open.

        Raises:
            StreamGapError: retention has deleted some of it. StreamError: the topic ends before they do.
            UnreachableError: begin again from the start.
        """
        with closing(self._open_source()) as source:
            watermarks = dict(before.watermarks) if before else {}
            positions = dict(before.positions) if before else {}
            ends = {partition.number: at for partition, at in source.end_positions().items()}
            firsts = {partition.number: at for partition, at in source.first_positions().items()}
            for number, first in firsts.items():
                if positions.get(number, 0) < first:
                    raise StreamGapError(topics.SAMPLES.name, number, positions.get(number, 0), first, ends[number])
            source.seek({Partition(topics.SAMPLES.name, number): at for number, at in positions.items()})
            waiting: dict[int, deque[SampleRecord]] = {number: deque() for number in ends}
            for manifest in batches:
                while (missing := _missing(manifest, watermarks)) is not None:
                    if positions.get(missing, 0) >= ends.get(missing, 0):
                        key = version_key(manifest.line, manifest.number)
                        raise StreamError(
                            f"{topics.SAMPLES.name} partition {missing} ends at offset {ends.get(missing, 0)}, before "
                            f"all that {key} took in: records that it was learnt from are gone"
                        )
                    for record in source.poll(_POLL_SECONDS, _MAX_RECORDS):
                        positions[record.partition] = record.offset + 1
                        try:
                            decoded = decode(record.value, SampleRecord)
                        except DecodeError:
                            continue  # Was a gap then and is one now.
                        source_partition = decoded.source_partition
                        if coverage(decoded, watermarks.get(source_partition, 0)) == "new":
                            watermarks[source_partition] = decoded.to_offset
                            waiting.setdefault(source_partition, deque()).append(decoded)
                yield _chapter(manifest, waiting)


def _missing(manifest: Manifest, watermarks: Mapping[int, int]) -> int | None:
    """A partition of which not all of this micro-batch was read yet."""
    return next((p for p, to in sorted(manifest.watermarks.items()) if watermarks.get(p, 0) < to), None)


def _chapter(manifest: Manifest, waiting: Mapping[int, deque[SampleRecord]]) -> Chapter:
    samples: list[Sample] = []
    probes: list[Sample] = []
    forgets: list[Forget] = []
    outcomes: Counter[str] = Counter()
    for partition, to_offset in sorted(manifest.watermarks.items()):
        records = waiting.get(partition, deque())
        while records and records[0].to_offset <= to_offset:
            record = records.popleft()
            samples += record.samples
            outcomes[record.outcome] += 1
            if record.probe is not None:
                probes.append(record.probe)
            if record.forget is not None:
                forgets.append(record.forget)
    samples.sort(key=canonical)
    probes.sort(key=canonical)
    return Chapter(manifest, samples, probes, forgets, outcomes)
