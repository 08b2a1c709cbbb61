"""Records in, accounts out: for each record what became of it, what it taught, and why not.

No sockets here but those behind the stores that are handed in. Every answer depends on the record and on what those
stores knew of earlier positions, so a record that is handled again is answered the same.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from lifelong.collector.answers import Labelled, labelled
from lifelong.collector.config import CollectorSettings
from lifelong.collector.dedupe import Claim, SeenStore, Signer, digest
from lifelong.collector.joins import Half, HalfStore
from lifelong.collector.mask import Masker
from lifelong.collector.samples import Made, make
from lifelong.collector.scrub import Scrubber
from lifelong.contracts.codec import Fetch, decode_event
from lifelong.contracts.events import Dialogue, Document, Event, Observation
from lifelong.contracts.samples import SampleRecord
from lifelong.errors import DecodeError
from lifelong.memory.base import MemoryEntry
from lifelong.stream.base import Record

log = logging.getLogger(__name__)

UNKNOWN_TYPE = "unknown"

_DETAIL_CHARS = 500
_SAME = {"event": "the same event as", "content": "the same content as", "near": "nearly the same content as"}


class Handled(msgspec.Struct, frozen=True):
    """What became of one record."""

    record: SampleRecord
    type: str
    """Of the event; ``unknown`` if it could not be decoded."""
    memory: tuple[MemoryEntry, ...] = ()
    refusal: DecodeError | None = None
    """With the outcome ``dead-letter``."""
    labelled: Labelled | None = None
    """A label that is not refused and no duplicate."""


class _Read(msgspec.Struct, frozen=True):
    """A record that was decoded, and what there is in it as far as it alone can tell."""

    record: Record
    event: Event | None = None
    made: Made | None = None
    """``None`` if it was refused."""
    refusal: DecodeError | None = None
    is_decided: bool = False

    @property
    def position(self) -> str:
        return f"{self.record.partition}-{self.record.offset}"


class Handler:
    def __init__(
        self,
        settings: CollectorSettings,
        *,
        seen: SeenStore,
        halves: HalfStore,
        fetch: Fetch | None = None,
    ) -> None:
        self._settings = settings
        self._seen = seen
        self._halves = halves
        self._fetch = fetch
        self._masker = Masker(settings.mask)
        self._scrubber = Scrubber(settings, self._masker)
        self._signer = Signer(settings.near_min_words)

    @property
    def masked(self) -> Counter[str]:
        """How much the last call of ``handle`` has masked, by kind."""
        return self._masker.counts

    def handle(self, records: Sequence[Record], covered: Mapping[int, int]) -> list[Handled]:
        """
        Args:
            records: of one topic, in order within each partition, each at or after what is covered.
            covered: partition → first source offset that no earlier account covers.

        Raises:
            UnreachableError: a store does not answer. Nothing is lost; the same call may be made again.
        """
        self._masker.counts.clear()
        read = self._joined(self._without_duplicates([self._read(record) for record in records]))
        handled = []
        covers_to = dict(covered)
        for one in read:
            handled.append(self._account(one, covers_to[one.record.partition]))
            covers_to[one.record.partition] = one.record.offset + 1
        return handled

    def _read(self, record: Record) -> _Read:
        event = None
        try:
            self._check_size(record)
            event = decode_event(
                record.value,
                record.headers,
                record_time=record.time,
                max_bytes=self._settings.max_event_bytes,
                fetch=self._fetch,
            )
            # By the time of the record and not by the clock: on a replay it is later, and the answer must be the same.
            if event.expirytime is not None and event.expirytime < record.time:
                expired = Made("expired", detail="had expired when it was published")
                return _Read(record, event, expired, is_decided=True)
            event = self._scrubber.scrub(event)
            made = make(event, f"{record.partition}-{record.offset}", self._settings)
            return _Read(record, event, made)
        except DecodeError as error:
            return _Read(record, event, refusal=error, is_decided=True)
        except Exception as error:
            # One event that we cannot cope with must not stop the stream. If it is many, the dead letters will.
            log.exception("offset %d of partition %d of %s", record.offset, record.partition, record.topic)
            refusal = DecodeError("failed", f"{type(error).__name__}: {error}")
            return _Read(record, event, refusal=refusal, is_decided=True)

    def _check_size(self, record: Record) -> None:
        num_bytes = len(record.key or b"") + len(record.value or b"")
        num_bytes += sum(len(name) + len(text or b"") for name, text in record.headers)
        if num_bytes > self._settings.max_event_bytes:
            raise DecodeError("too-large", f"{num_bytes} bytes; at most {self._settings.max_event_bytes} are accepted")

    def _without_duplicates(self, read: Sequence[_Read]) -> list[_Read]:
        """Only what was not refused claims to be first: an event may be sent again once it was mended."""
        undecided = [one for one in read if not one.is_decided]
        verdicts = iter(self._seen.first_seen([self._claim(one) for one in undecided]))
        found = []
        for one in read:
            if not one.is_decided and (duplicate := next(verdicts)) is not None:
                made = Made("duplicate", detail=f"{_SAME[duplicate.kind]} {duplicate.of}")
                one = msgspec.structs.replace(one, made=made, is_decided=True)
            found.append(one)
        return found

    def _claim(self, one: _Read) -> Claim:
        event = one.event
        assert event is not None
        content = signature = None
        # What is remembered of a document is shown only to its user, so another user's copy is no duplicate.
        if isinstance(event.data, Document):
            scope = event.data.user or ""
            content = digest("document", scope, event.data.title or "", event.data.text)
            signature = self._signer.sign(event.data.text, scope)
        elif isinstance(event.data, Dialogue):
            turns = (part for message in event.data.messages for part in (message.role, message.content))
            content = digest("dialogue", event.data.user or "", *turns)
        identity = digest("event", event.source, event.id)
        return Claim(one.position, one.record.time, identity, content, signature)

    def _joined(self, read: Sequence[_Read]) -> list[_Read]:
        """Observations that came in two parts, put together where the other part was there before."""
        halves = {one.position: half for one in read if (half := _half(one)) is not None}
        others = dict(zip(halves, self._halves.meet(list(halves.values())), strict=True))
        joined = []
        for one in read:
            if (other := others.get(one.position)) is not None:
                assert one.event is not None
                made = make(one.event, one.position, self._settings, other)
                one = msgspec.structs.replace(one, made=made)
            joined.append(one)
        return joined

    def _account(self, one: _Read, from_offset: int) -> Handled:
        made = one.made
        if made is None:
            assert one.refusal is not None
            made = Made("dead-letter", detail=str(one.refusal)[:_DETAIL_CHARS])
        record = SampleRecord(
            source_topic=one.record.topic,
            source_partition=one.record.partition,
            from_offset=from_offset,
            to_offset=one.record.offset + 1,
            outcome=made.outcome,
            samples=made.samples,
            detail=made.detail,
            event_id=one.event.id if one.event else None,
            forget=made.forget,
            probe=made.probe,
        )
        is_taken = made.outcome in ("sample", "memory-only")
        label = labelled(one.event.data) if one.event is not None and is_taken else None
        return Handled(record, one.event.type if one.event else UNKNOWN_TYPE, made.memory, one.refusal, label)


def _half(one: _Read) -> Half | None:
    """What an observation keeps for, or looks for in, another."""
    if one.is_decided or one.event is None:
        return None
    data = one.event.data
    if not isinstance(data, Observation) or data.observation_id is None:
        return None
    text = data.label if data.input is None else data.input
    assert text is not None
    return Half(
        task=data.task,
        observation_id=data.observation_id,
        partition=one.record.partition,
        offset=one.record.offset,
        side="label" if data.input is None else "input",
        text=text,
        event_id=one.event.id,
    )
