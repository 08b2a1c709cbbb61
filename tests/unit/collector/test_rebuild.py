"""Redis was lost: what the collectors knew is made again, in memory. On a real Valkey: tests/integration."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from tests.unit.collector.making import NOW, accounts, make_event

from lifelong.collector.app import CollectorApp, group_id
from lifelong.collector.config import Settings
from lifelong.collector.dedupe import Claim, Duplicate, LocalSeen
from lifelong.collector.handler import Handler
from lifelong.collector.joins import LocalHalves
from lifelong.collector.knowledge import KnowledgeLostError
from lifelong.collector.patience import Stopped
from lifelong.collector.rebuild import Rebuilder
from lifelong.contracts import topics
from lifelong.contracts.codec import encode_event
from lifelong.contracts.events import Document, EventData, Fact, Forget, Observation
from lifelong.memory.local import LocalMemory
from lifelong.runtime.clock import ManualClock
from lifelong.runtime.health import Health
from lifelong.runtime.metrics import Metrics
from lifelong.stream.memory import MemoryBroker

EVENTS = topics.EVENTS.name
GROUP = group_id("lifelong")


class Redis:
    """All that is lost with it."""

    def __init__(self) -> None:
        self.num_tokens = 0
        self.lose()

    def lose(self) -> None:
        self.memory, self.seen, self.halves = LocalMemory(), LocalSeen(1e9, 0.8), LocalHalves()
        self.known: str | None = None
        self.teller: str | None = None


class Known:
    """What RedisKnowledge is to one collector."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.trusted: str | None = None
        self.teller = ""

    def token(self) -> str | None:
        self.trusted = self._redis.known
        return self._redis.known

    def is_still(self, token: str) -> bool:
        return self._redis.known == token

    def begin(self, teller: str) -> bool:
        self.teller = teller
        self._redis.teller = self._redis.teller or teller
        return self._redis.teller == teller

    def complete(self, teller: str) -> bool:
        if self._redis.teller != teller:
            return False
        self._redis.num_tokens += 1
        self._redis.known, self._redis.teller = str(self._redis.num_tokens), None
        return True


class Part:
    """Whatever a part of Redis is at the moment of a call; ``before`` is called first."""

    def __init__(self, redis: Redis, name: str, before: Callable[[str], None]) -> None:
        self._redis, self._name, self._before = redis, name, before

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            self._before(f"{self._name}.{method}")
            return getattr(getattr(self._redis, self._name), method)(*args, **named)

        return call


class Seen(Part):
    """Decides only for whoever proves that all is known, as RedisSeen does."""

    def __init__(
        self, redis: Redis, before: Callable[[str], None], proof: Callable[[], tuple[str, str | None]]
    ) -> None:
        super().__init__(redis, "seen", before)
        self._proof = proof

    def first_seen(self, claims: Sequence[Claim]) -> list[Duplicate | None]:
        self._before("seen.first_seen")
        name, wanted = self._proof()
        if getattr(self._redis, name) != wanted:
            raise KnowledgeLostError
        return self._redis.seen.first_seen(claims)


class World:
    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.broker = MemoryBroker(clock=self.clock)
        self.redis = Redis()
        self.stop = threading.Event()
        self.health = Health("collector")
        self.settings = Settings()

    def collector(self, before: Callable[[str], None] = lambda step: None) -> CollectorApp:
        redis = self.redis
        memory, halves = Part(redis, "memory", before), Part(redis, "halves", before)
        knowledge = Known(redis)
        return CollectorApp(
            self.settings,
            source=self.broker.group_source([EVENTS], GROUP, before),
            sink=self.broker.sink(before),
            memory=memory,
            seen=Seen(redis, before, lambda: ("known", knowledge.trusted)),
            halves=halves,
            metrics=Metrics("collector"),
            health=self.health,
            clock=self.clock,
            rebuilder=self.rebuilder(knowledge, before),
        )

    def rebuilder(self, knowledge: Known, before: Callable[[str], None] = lambda step: None) -> Rebuilder:
        redis, group = self.redis, self.broker.group(GROUP)
        memory, halves = Part(redis, "memory", before), Part(redis, "halves", before)
        seen = Seen(redis, before, lambda: ("teller", knowledge.teller))
        return Rebuilder(
            Handler(self.settings.collector, seen=seen, halves=halves),
            history=lambda: self.broker.source([EVENTS]),
            committed=lambda: dict(group.committed),
            memory=memory,
            knowledge=knowledge,
            clock=self.clock,
        )

    def publish(self, data: EventData, event_id: str, partition: int = 0) -> None:
        value, headers = encode_event(make_event(data, event_id))
        self.clock.advance(1)
        self.broker.sink().send(EVENTS, value, headers=headers, partition=partition)

    def work(self, collector: CollectorApp) -> None:
        while collector.turn(self.stop):
            pass

    def work_once(self, before: Callable[[str], None] = lambda step: None) -> None:
        """By a collector that comes and goes."""
        collector = self.collector(before)
        self.work(collector)
        collector.close()

    def remembered(self) -> set[str]:
        return {change.entry_id for change in self.redis.memory.changes(None).changes}

    def outcomes(self, partition: int = 0) -> list[str]:
        """As a reader takes them in: of what was written twice the first."""
        taken: dict[int, str] = {}
        for account in accounts(self.broker, partition):
            taken.setdefault(account.to_offset, account.outcome)
        return list(taken.values())


def fact(number: int) -> Fact:
    return Fact(subject=f"thing {number}", relation="colour", object=f"colour {number}")


def note(number: int, user: str) -> Document:
    return Document(text=f"Note {number}: the key is under mat {number}.", user=user)


def test_memory_duplicates_and_halves_are_as_before() -> None:
    world = World()
    world.publish(fact(1), "a")
    world.publish(fact(2), "b", 1)
    world.publish(Observation(task="t", input="What is this?", observation_id="o"), "in")
    collector = world.collector()
    world.work(collector)
    before = world.remembered()
    assert len(before) == 2
    world.redis.lose()
    world.publish(fact(1), "a")
    world.publish(Observation(task="t", label="A cat", observation_id="o"), "out")
    world.work(collector)
    assert world.remembered() >= before
    assert world.outcomes() == ["sample", "memory-only", "duplicate", "sample"]


def test_what_was_forgotten_stays_so_and_what_came_later_stays() -> None:
    world = World()
    world.publish(note(1, "ann"), "a")
    world.publish(note(2, "ann"), "b", 1)
    world.publish(note(3, "bob"), "c", 1)
    world.publish(fact(4), "d")
    world.publish(Forget(user="ann"), "f1", 1)
    world.publish(Forget(event_ids=("d",)), "f2")
    collector = world.collector()
    world.work(collector)
    world.publish(note(5, "ann"), "e")
    world.work(collector)
    before = world.remembered()
    assert before == {"1-1-0", "0-3-0"}
    for lose in (world.redis.lose, lambda: setattr(world.redis, "known", None)):
        lose()
        world.work(collector)
        assert world.remembered() == before


def test_of_what_came_twice_the_first_counts_whichever_partition_is_read_first() -> None:
    world = World()
    world.publish(fact(1), "a", 1)
    world.work_once()
    world.publish(fact(1), "a", 0)
    world.publish(fact(2), "b", 0)
    world.work_once()
    before = world.remembered()
    assert before == {"1-0-0", "0-1-0"}
    world.redis.lose()
    world.work_once()
    assert world.remembered() == before


@pytest.mark.parametrize("step", ["seen.first_seen", "halves.meet", "memory.put", "send", "flush", "commit"])
def test_lost_at_any_moment_of_the_work(step: str) -> None:
    """What was decided without what was known is not published, and what is not in memory is not committed."""
    world = World()
    world.publish(fact(1), "a")
    world.publish(Observation(task="t", input="What is this?", observation_id="o"), "in")
    world.work_once()
    world.publish(fact(1), "a")
    world.publish(fact(2), "b")
    world.publish(Observation(task="t", label="A cat", observation_id="o"), "out")
    lost = []

    def before(happening: str) -> None:
        if happening.split(" ")[0] == step and not lost:
            lost.append(happening)
            world.redis.lose()

    world.work_once(before)
    world.work_once()
    assert lost
    assert world.remembered() >= {"0-0-0", "0-3-0"}
    assert world.outcomes() == ["sample", "memory-only", "duplicate", "sample", "sample"]


@pytest.mark.parametrize("step", ["send", "flush"])
def test_lost_and_told_again_by_another_before_what_was_written_is_committed(step: str) -> None:
    world = World()
    world.publish(fact(1), "a")
    world.work_once()
    world.publish(fact(2), "b")
    told = []

    def before(happening: str) -> None:
        if happening.split(" ")[0] == step and not told:
            world.redis.lose()
            told.append(world.rebuilder(Known(world.redis)).token(world.stop))

    world.work_once(before)
    assert told
    assert world.remembered() == {"0-0-0", "0-1-0"}
    assert world.outcomes() == ["sample", "sample"]


def test_others_wait_and_one_that_is_told_to_stop_stops() -> None:
    world = World()
    world.publish(fact(1), "a")
    world.work_once()
    world.redis.lose()
    assert Known(world.redis).begin("somebody else")
    world.publish(fact(2), "b")
    world.stop.set()
    with pytest.raises(Stopped):
        world.collector().turn(world.stop)
    assert world.outcomes() == ["sample"]


def test_nothing_is_read_again_where_nothing_was_lost_or_ever_known() -> None:
    world = World()
    opened = []
    source = world.broker.source

    def noting(names: Any) -> Any:
        opened.append(names)
        return source(names)

    world.broker.source = noting
    world.publish(fact(1), "a")
    world.work_once()
    world.work_once()
    assert opened == []
    assert world.outcomes() == ["sample"]


def test_settings_are_read() -> None:
    assert msgspec.convert({"collector": {"on_gap": "skip"}}, Settings).collector.on_gap == "skip"
