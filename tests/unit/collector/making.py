"""Events, records and handlers for the tests of the collector."""

from __future__ import annotations

from typing import Any

from lifelong.collector.config import CollectorSettings
from lifelong.collector.dedupe import LocalSeen
from lifelong.collector.handler import Handled, Handler
from lifelong.collector.joins import LocalHalves
from lifelong.contracts import topics
from lifelong.contracts.codec import decode, encode_event, type_name
from lifelong.contracts.events import Event, EventData
from lifelong.contracts.samples import SampleRecord, coverage
from lifelong.stream.base import Record
from lifelong.stream.memory import MemoryBroker

NOW = 1_700_000_000.0


def make_event(data: EventData, event_id: str = "e", **attributes: Any) -> Event:
    return Event(id=event_id, source="/test", type=type_name(data), data=data, time=NOW, **attributes)


def record_of(event: Event, offset: int = 0, partition: int = 0, time: float = NOW) -> Record:
    value, headers = encode_event(event)
    return Record(topics.EVENTS.name, partition, offset, None, value, tuple(headers), time)


def make_handler(settings: CollectorSettings = CollectorSettings(), **stores: Any) -> Handler:
    stores = {"seen": LocalSeen(settings.dedupe_window_seconds, 0.8), "halves": LocalHalves(), **stores}
    return Handler(settings, **stores)


def outcomes(handled: list[Handled]) -> list[str]:
    return [one.record.outcome for one in handled]


def accounts(broker: MemoryBroker, partition: int) -> list[SampleRecord]:
    """What a reader takes in, once each, in order. Fails if anything is left out."""
    watermark = 0
    taken = []
    for record in broker.records(topics.SAMPLES.name, partition):
        account = decode(record.value, SampleRecord)
        assert account.source_partition == partition
        found = coverage(account, watermark)
        assert found != "gap"
        if found == "new":
            watermark = account.to_offset
            taken.append(account)
    return taken
