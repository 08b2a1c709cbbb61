"""What a schedule publishes: events of all kinds, some twice, some garbage, some too late, and requests."""

from __future__ import annotations

import datetime
import random
import time
from collections.abc import Iterator

import msgspec

from lifelong.contracts import topics
from lifelong.contracts.codec import encode, encode_event, encode_event_structured, type_name
from lifelong.contracts.events import (
    Dialogue,
    Document,
    Event,
    EventData,
    Fact,
    Feedback,
    Forget,
    Interaction,
    Message,
    Observation,
    Preference,
)
from lifelong.contracts.requests import Request
from lifelong.contracts.samples import Outcome

SOURCE = "tests.schedules"

Headers = tuple[tuple[str, bytes], ...]


class Item(msgspec.Struct, frozen=True):
    """One record to publish."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers = ()
    pause_seconds: float = 0.0
    """Before it."""
    event_id: str | None = None
    request_id: str | None = None


class Burst(msgspec.Struct, frozen=True):
    items: tuple[Item, ...]
    expected: dict[str, Outcome]
    """By event id: what becomes of one of its records. Any other with this id is a duplicate."""
    num_garbage: int
    request_ids: tuple[str, ...]

    @property
    def num_events(self) -> int:
        return sum(item.topic == topics.EVENTS.name for item in self.items)


def burst(seed: int, run: str) -> Burst:
    """``run`` makes the ids unlike those of any other run of this seed."""
    return _Maker(seed, run).make()


class _Maker:
    def __init__(self, seed: int, run: str) -> None:
        self._draw = random.Random(f"burst {seed}")
        self._name = f"{run}-{seed}"
        self._count = 0
        self._expected: dict[str, Outcome] = {}

    def make(self) -> Burst:
        draw = self._draw
        events = [self._event(data, key) for data, key in self._data()]
        # An event that is sent again, somewhere later.
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(events))
            events.insert(draw.randint(at + 1, len(events)), events[at])
        if draw.random() < 0.3:
            events.insert(draw.randrange(1, len(events)), self._expired())
        if draw.random() < 0.3:
            self._forget(events)
        garbage = [self._garbage() for _ in range(draw.randint(0, 2))]
        requests = [self._request() for _ in range(draw.randint(2, 3))]
        items = events
        for item in (*garbage, *requests):
            items.insert(draw.randint(0, len(items)), item)
        # Now in one go, now one by one.
        paces = [msgspec.structs.replace(item, pause_seconds=draw.choice((0, 0, 0, 0.05, 0.3))) for item in items]
        requested = tuple(item.request_id for item in items if item.request_id)
        return Burst(tuple(paces), self._expected, len(garbage), requested)

    def _data(self) -> Iterator[tuple[EventData, str]]:
        draw, name = self._draw, self._name
        for number in range(draw.randint(8, 12)):
            question = (Message("user", f"What is the code of {name}-{number}?"),)
            code = str(draw.randrange(10_000))
            data: EventData = draw.choice(
                (
                    Document(text=f"The code of the box {name}-{number} is {code}, and its colour is red."),
                    Dialogue(messages=(*question, Message("assistant", code)), user=f"user-{number}"),
                    Feedback(messages=question, correction=code),
                    Feedback(messages=question, answer=code, rating=0.9),
                    Feedback(messages=question, answer=code, rating=-0.9),
                    Preference(messages=question, chosen=code, rejected="no idea"),
                    Interaction(user=f"user-{number}", item=f"film-{code}", action="liked"),
                    Observation(task="colour", input=f"#{name}-{code}", label="red"),
                    Fact(subject=f"box {draw.randrange(5)}", relation="code", object=code),
                    Fact(subject=f"{name}-{number}", relation="code", object=code),
                )
            )
            yield data, f"key-{draw.randrange(6)}"
        if draw.random() < 0.4:
            half = f"half-{name}"
            yield Observation(task="late", input=f"late {name}", observation_id=half), "late"
            yield Observation(task="late", label=str(draw.randrange(100)), observation_id=half), "late"

    def _event(self, data: EventData, key: str, outcome: Outcome | None = None, expires: float | None = None) -> Item:
        self._count += 1
        event = Event(
            id=f"{self._name}-{self._count}",
            source=SOURCE,
            type=type_name(data),
            data=data,
            # Clocks of applications differ.
            time=time.time() + self._draw.choice((0, 0, 0, -3600, 3600)),
            expirytime=expires,
        )
        waits = isinstance(data, Observation) and data.label is None
        self._expected[event.id] = outcome or ("memory-only" if waits else "sample")
        as_it_is = self._draw.random() < 0.8
        value, headers = encode_event(event) if as_it_is else encode_event_structured(event)
        return Item(topics.EVENTS.name, key.encode(), value, tuple(headers), event_id=event.id)

    def _expired(self) -> Item:
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        data = Fact(subject=self._name, relation="age", object="old")
        return self._event(data, "expired", "expired", yesterday.timestamp())

    def _forget(self, events: list[Item]) -> None:
        """Of something before it, with its key: so it comes after it in the same partition."""
        at = self._draw.randrange(len(events))
        victim = events[at]
        assert victim.event_id is not None
        request = self._event(Forget(event_ids=(victim.event_id,)), victim.key.decode(), "forget")
        events.insert(self._draw.randint(at + 1, len(events)), request)

    def _garbage(self) -> Item:
        name = self._name.encode()
        value, headers = self._draw.choice(
            (
                (b"\xff\xfe " + name, ()),
                (b"{not json " + name, ()),
                (b'{"specversion": "1.0", "id": "1", "source": "x", "type": "unknown", "data": {}}', ()),
                (b"{}", (("ce_id", name), ("ce_specversion", b"1.0"), ("ce_type", b"lifelong.fact"))),
            )
        )
        return Item(topics.EVENTS.name, b"garbage-%d" % self._draw.randrange(6), value, headers)

    def _request(self) -> Item:
        self._count += 1
        request_id = f"{self._name}-r{self._count}"
        request = Request(
            id=request_id, messages=(Message("user", f"What is {self._draw.randrange(100)}?"),), max_tokens=8
        )
        return Item(topics.REQUESTS.name, request_id.encode(), encode(request), request_id=request_id)
