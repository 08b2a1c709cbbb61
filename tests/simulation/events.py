"""What applications publish in a run, from the seed: short, of all kinds, some of it twice, some of it garbage."""

from __future__ import annotations

import random
from typing import NamedTuple

from tests.simulation.schedule import START

from lifelong.contracts.codec import encode, encode_event
from lifelong.contracts.events import (
    Dialogue,
    Document,
    Event,
    EventData,
    Fact,
    Feedback,
    Forget,
    Message,
    Observation,
    Probe,
)
from lifelong.contracts.requests import Request

_THINGS = ("ox", "elm", "jay", "oak", "cod", "fig")
_WORDS = ("red", "big", "old", "wet", "dry", "new")
_USERS = ("ann", "bob")


class Published(NamedTuple):
    at: float
    """Seconds since the start of the run."""
    partition: int
    value: bytes
    headers: list[tuple[str, bytes]]
    key: bytes | None = None


class Workload(NamedTuple):
    events: list[Published]
    requests: list[Published]


def make_workload(seed: int, num_partitions: int, *, with_forgets: bool, with_requests: bool) -> Workload:
    r = random.Random(f"events {seed}")
    seconds = r.choice([0.5, 5.0, 20.0])
    times = sorted(r.uniform(0, seconds) for _ in range(r.randint(6, 14)))
    makers = Makers(r, with_forgets)
    events: list[Published] = []
    for time in times:
        for value, headers in makers.next(time):
            events.append(Published(time, r.randrange(num_partitions), value, headers))
    requests = []
    if with_requests:
        for number in range(r.randint(1, 6)):
            value = encode(_request(r, number)) if r.random() < 0.85 else b"{not a request"
            requests.append(Published(r.uniform(0, 1.5 * seconds), r.randrange(num_partitions), value, []))
    # By time, so that both topics are published in this order in every run of the seed.
    return Workload(events, sorted(requests, key=lambda request: request.at))


def _request(r: random.Random, number: int) -> Request:
    model = r.choice([None, None, None, "lifelong", "lifelong@0", "lifelong@1", "lifelong@99", "lifelong-student"])
    return Request(id=f"r{number}", messages=(Message("user", "So?"),), model=model, memory=False)


class Makers:
    def __init__(self, r: random.Random, with_forgets: bool) -> None:
        self._random = r
        self._number = 0
        self._sent: list[tuple[bytes, list[tuple[str, bytes]]]] = []
        self._ids: list[str] = []
        self._makers = [
            self._fact,
            self._fact,
            self._correction,
            self._observation,
            self._observation,
            self._halves,
            self._document,
            self._dialogue,
            self._disliked,
            self._again,
            self._again,
            self._garbage,
            self._expired,
            self._poor,
            self._probe,
        ] + ([self._forget, self._forget] if with_forgets else [])

    def next(self, time: float) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        """One event, or several that belong together."""
        self._time = START + time
        made = self._random.choice(self._makers)()
        self._sent += made
        return made

    def _event(self, data: EventData, **attributes: float) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        self._number += 1
        identifier = f"e{self._number}"
        self._ids.append(identifier)
        # Some are told late.
        time = self._time - self._random.choice([0, 0, 0, 3600])
        event = Event(id=identifier, source="sim", type=_type(data), data=data, time=time, **attributes)
        return [encode_event(event)]

    def _fact(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        return self._event(Fact(self._pick(_THINGS), "is", self._pick(_WORDS), question=f"{self._pick(_THINGS)}?"))

    def _correction(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        messages = (Message("user", f"{self._pick(_THINGS)}?"),)
        return self._event(Feedback(messages, answer="no", correction=self._pick(_WORDS), user=self._user()))

    def _disliked(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        return self._event(Feedback((Message("user", "hm?"),), answer="no", rating=self._random.choice([-1.0, 1.0])))

    def _observation(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        return self._event(Observation(self._pick(("t", "u")), self._pick(_THINGS), self._pick(_WORDS)))

    def _halves(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        identifier = f"o{self._number}"
        parts = [
            Observation("t", self._pick(_THINGS), observation_id=identifier),
            Observation("t", label=self._pick(_WORDS), observation_id=identifier),
        ]
        if self._random.random() < 0.3:
            parts.reverse()
        return [made for part in parts for made in self._event(part)]

    def _document(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        return self._event(Document(f"the {self._pick(_THINGS)} is {self._pick(_WORDS)}", user=self._user()))

    def _dialogue(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        turns = (Message("user", f"{self._pick(_THINGS)}!"), Message("assistant", self._pick(_WORDS)))
        return self._event(Dialogue(turns, user=self._user()))

    def _again(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        return [self._random.choice(self._sent)] if self._sent else self._fact()

    def _garbage(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        return [(self._random.choice([b"garbage", b'{"specversion":"1.0"}', b"\xff"]), [("h", b"\xfe")])]

    def _poor(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        return self._event(Document("!"))

    def _probe(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        return self._event(Probe(f"{self._pick(_THINGS)}?", self._pick(_WORDS)))

    def _expired(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        return self._event(Fact("ox", "is", "late"), expirytime=START - 3600)

    def _forget(self) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
        if self._random.random() < 0.3 or not self._ids:
            return self._event(Forget(user=self._user()))
        return self._event(Forget(event_ids=(self._random.choice(self._ids),)))

    def _pick(self, words: tuple[str, ...]) -> str:
        return self._random.choice(words)

    def _user(self) -> str | None:
        return self._random.choice((*_USERS, None))


def _type(data: EventData) -> str:
    from lifelong.contracts.codec import type_name

    return type_name(data)
