from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.collector.making import NOW, accounts, make_event
from tests.unit.contracts import strategies as a

from lifelong.collector.app import CollectorApp, group_id
from lifelong.collector.config import Settings
from lifelong.collector.dedupe import LocalSeen
from lifelong.collector.joins import LocalHalves
from lifelong.contracts import metrics as names
from lifelong.contracts import topics
from lifelong.contracts.codec import encode_event
from lifelong.contracts.events import Document, EventData, Fact, Forget, Observation, Probe
from lifelong.errors import StreamGapError, TooManyDeadLettersError, UnreachableError
from lifelong.memory.base import MemoryEntry
from lifelong.memory.local import LocalMemory
from lifelong.runtime.clock import ManualClock
from lifelong.runtime.health import Health
from lifelong.runtime.metrics import Metrics
from lifelong.stream.base import Partition
from lifelong.stream.dead_letters import DeadLetterLimit
from lifelong.stream.memory import MemoryBroker

EVENTS = topics.EVENTS.name
GROUP = group_id("lifelong")
Step = Callable[[str], None]


class World:
    """A broker and the stores, and collectors that come and go on them."""

    def __init__(self, **collector: Any) -> None:
        self.clock = ManualClock(NOW)
        self.broker = MemoryBroker(clock=self.clock)
        self.memory = LocalMemory()
        self.seen = LocalSeen(1e9, 0.8)
        self.halves = LocalHalves()
        self.metrics = Metrics("collector")
        self.health = Health("collector")
        self.stop = threading.Event()
        self.settings = msgspec.convert({"collector": {"max_backoff_seconds": 0.001, **collector}}, Settings)

    def collector(self, on: Step = lambda step: None, memory: Any = None) -> CollectorApp:
        return CollectorApp(
            self.settings,
            source=self.broker.group_source([EVENTS], GROUP, on),
            sink=self.broker.sink(on),
            memory=self.memory if memory is None else memory,
            seen=self.seen,
            halves=self.halves,
            metrics=self.metrics,
            health=self.health,
            clock=self.clock,
        )

    def publish(self, data: EventData, event_id: str, partition: int = 0, **attributes: Any) -> None:
        value, headers = encode_event(make_event(data, event_id, **attributes))
        self.broker.sink().send(EVENTS, value, headers=headers, partition=partition)

    def work(self, collector: CollectorApp) -> None:
        while collector.turn(self.stop):
            pass

    def outcomes(self, partition: int = 0) -> list[str]:
        return [account.outcome for account in accounts(self.broker, partition)]


def fact(number: int) -> Fact:
    return Fact(subject=f"thing {number}", relation="colour", object="red")


def test_events_become_samples_in_their_partition_and_memories() -> None:
    world = World()
    for number in range(10):
        world.publish(fact(number), f"e{number}", number % 2)
    world.broker.sink().send(EVENTS, b"garbage", key=b"k", headers=[("h", b"\xff")], partition=1)
    world.work(world.collector())
    assert [account.samples[0].event_id for account in accounts(world.broker, 0)] == ["e0", "e2", "e4", "e6", "e8"]
    assert world.outcomes(1) == ["sample"] * 5 + ["dead-letter"]
    assert len(world.memory) == 10
    assert world.broker.committed(GROUP, Partition(EVENTS, 1)) == 6
    (letter,) = world.broker.records(topics.EVENTS_DLQ.name)
    headers = dict(letter.headers)
    assert (letter.value, letter.key, headers["h"]) == (b"garbage", b"k", b"\xff")
    assert headers[topics.DLQ_HEADER_REASON] == b"not-json"
    assert (headers[topics.DLQ_HEADER_PARTITION], headers[topics.DLQ_HEADER_OFFSET]) == (b"1", b"5")
    assert headers[topics.DLQ_HEADER_PROCESS] == b"collector"


def test_what_is_shown_of_it() -> None:
    world = World()
    world.publish(Document(text="Mine is 4111 1111 1111 1111."), "a")
    world.publish(Document(text="Mine is 4111 1111 1111 1111."), "b")
    # Without key and value: our own sink would not send it.
    world.broker.append(EVENTS, None, None, 0, (), None)
    collector = world.collector()
    assert not world.health.ready
    world.clock.advance(5)
    world.work(collector)
    value = world.metrics.value
    assert value(names.EVENTS, type="lifelong.document", outcome="sample") == 1
    assert value(names.EVENTS, type="lifelong.document", outcome="duplicate") == 1
    assert value(names.EVENTS, type="unknown", outcome="dead-letter") == 1
    assert value(names.DEAD_LETTERS, topic=EVENTS, reason="empty") == 1
    assert value(names.RECORDS, topic=EVENTS) == 3
    assert value(names.MASKED, kind="card") == 2
    assert value(names.COLLECT_SECONDS) == 1
    assert value(names.LAG_RECORDS, topic=EVENTS, partition="0") == 0
    assert world.health.ready
    assert world.health.report()["covered"] == {0: 3, 1: 0}


def test_lag_is_the_age_of_what_was_read_last_while_more_waits() -> None:
    world = World(max_poll_records=1)
    world.publish(fact(1), "a")
    world.publish(fact(2), "b")
    collector = world.collector()
    world.clock.advance(7)
    collector.turn(world.stop)
    assert world.metrics.value(names.LAG_RECORDS, topic=EVENTS, partition="0") == 1
    assert world.metrics.value(names.LAG_SECONDS, topic=EVENTS, partition="0") == 7
    collector.turn(world.stop)
    assert world.metrics.value(names.LAG_SECONDS, topic=EVENTS, partition="0") == 0


def test_forgetting_goes_by_the_order_of_the_events() -> None:
    world = World()
    world.publish(fact(1), "before")
    world.publish(Document(text="Of ada, before.", user="ada"), "ada")
    world.publish(Forget(event_ids=("before",), user="ada"), "forget")
    world.publish(Document(text="Of ada, afterwards.", user="ada"), "after")
    world.work(world.collector())
    assert [change.entry.event_id for change in world.memory.changes(None).changes if change.entry] == ["after"]
    account = accounts(world.broker, 0)[2]
    assert (account.outcome, account.forget) == ("forget", Forget(event_ids=("before",), user="ada"))


def test_a_probe_reaches_the_samples_topic_and_nothing_else() -> None:
    world = World()
    world.publish(Probe("Who?", "Ann."), "p")
    world.work(world.collector())
    [account] = accounts(world.broker, 0)
    assert (account.outcome, account.samples, account.event_id) == ("probe", (), "p")
    assert account.probe is not None
    assert account.probe.event_id == "p"
    assert world.memory.changes(None).changes == []


def test_servers_that_are_away_are_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    failures = dict.fromkeys(("poll", "send", "flush", "commit", "put"), 3)
    failing: list[str] = []

    def on(step: str) -> None:
        if failures[step]:
            failures[step] -= 1
            failing.append(step)
            raise UnreachableError(f"{step} failed")
        if failing:
            assert world.health.failure is not None or step != failing[-1]

    class Memory(LocalMemory):
        def put(self, entries: Sequence[MemoryEntry]) -> None:
            on("put")
            super().put(entries)

    for number in range(3):
        world.publish(fact(number), f"e{number}")
    memory = Memory()
    with caplog.at_level(logging.WARNING):
        world.work(world.collector(on, memory))
    assert len(failing) == 15
    assert world.outcomes() == ["sample"] * 3
    assert len(memory) == 3
    assert world.health.failure is None
    assert "flush failed; again in 0.0 s" in caplog.text


def test_told_to_stop_while_a_server_is_away_it_stops_and_commits_nothing() -> None:
    world = World()
    world.publish(fact(1), "a")

    def on(step: str) -> None:
        if step == "flush":
            world.stop.set()
            raise UnreachableError("gone")

    collector = world.collector(on)
    collector.run(world.stop)
    collector.close()
    assert world.broker.committed(GROUP, Partition(EVENTS, 0)) is None
    world.stop.clear()
    world.work(world.collector())
    assert world.outcomes() == ["sample"]


def test_deleted_events_are_no_reason_to_go_on_quietly() -> None:
    world = World()
    for number in range(6):
        world.publish(fact(number), f"e{number}")
    first = world.collector()
    world.work(first)
    first.close()
    for number in range(6, 9):
        world.publish(fact(number), f"e{number}")
    world.broker.delete_before(Partition(EVENTS, 0), 8)
    with pytest.raises(StreamGapError):
        world.work(world.collector())


def test_a_new_collector_starts_at_the_oldest_event_there_is() -> None:
    world = World()
    for number in range(3):
        world.publish(fact(number), f"e{number}")
    world.broker.delete_before(Partition(EVENTS, 0), 2)
    world.work(world.collector())
    (account,) = accounts(world.broker, 0)
    assert (account.from_offset, account.to_offset) == (0, 3)


def test_when_nearly_all_is_refused_it_stops_and_loses_nothing() -> None:
    world = World(dead_letter_limit=DeadLetterLimit(window_records=20, max_ratio=0.5, min_records=5))
    for _ in range(30):
        world.broker.sink().send(EVENTS, b"garbage", partition=0)
    with pytest.raises(TooManyDeadLettersError):
        world.work(world.collector())
    assert world.broker.committed(GROUP, Partition(EVENTS, 0)) is None


def test_a_letter_too_large_for_the_producer_is_cut() -> None:
    world = World()
    huge = b"x" * topics.MAX_MESSAGE_BYTES
    world.broker.sink().send(EVENTS, huge, headers=[("h", huge)], partition=0)
    world.work(world.collector())
    (letter,) = world.broker.records(topics.EVENTS_DLQ.name)
    assert len(letter.value or b"") == 1024 * 1024
    headers = dict(letter.headers)
    assert "h" not in headers
    assert headers[topics.DLQ_HEADER_REASON] == b"too-large"
    assert headers[topics.DLQ_HEADER_DETAIL].endswith(b"cut to its beginning")


def test_memory_is_swept_now_and_then() -> None:
    world = World()
    world.publish(fact(1), "a", expirytime=NOW + 100)
    collector = world.collector()
    world.work(collector)
    world.clock.advance(61)
    collector.turn(world.stop)
    assert len(world.memory) == 1
    world.clock.advance(61)
    collector.turn(world.stop)
    assert len(world.memory) == 0


def test_a_partition_that_comes_back_goes_on_where_the_other_left_it() -> None:
    world = World(max_poll_records=2)
    for number in range(12):
        world.publish(fact(number), f"e{number}", number % 2)
    one = world.collector()
    one.turn(world.stop)
    two = world.collector()
    two.turn(world.stop)
    two.turn(world.stop)
    one.turn(world.stop)
    two.close()
    world.work(one)
    for partition in (0, 1):
        found = accounts(world.broker, partition)
        assert [(account.from_offset, account.to_offset) for account in found] == [(i, i + 1) for i in range(6)]


class Crash(Exception):
    pass


headers = st.lists(
    st.tuples(
        st.text(max_size=8) | st.sampled_from(["ce_type", "ce_id", "ce_time", "content-type"]), st.binary(max_size=12)
    ),
    max_size=4,
)
garbage = st.tuples(st.none() | st.binary(max_size=40) | st.text(max_size=40).map(str.encode), headers)
good = a.events().map(encode_event)
records = st.lists(st.tuples(st.integers(0, 1), garbage | good | good), max_size=12)
halves = st.sampled_from([("i", None), (None, "l"), ("i", "l")]).map(
    lambda two: Observation(task="t", input=two[0], label=two[1], observation_id="o")
)


@given(records)
def test_nothing_that_comes_stops_the_stream(
    published: list[tuple[int, tuple[bytes | None, list[tuple[str, bytes]]]]],
) -> None:
    """Any bytes under any headers: each record is accounted for, and each refusal has its letter and its reason."""
    world = World()
    for partition, (value, head) in published:
        world.broker.append(EVENTS, value, None, partition, head, None)
    world.work(world.collector())
    refused = 0
    for partition in (0, 1):
        found = accounts(world.broker, partition)
        assert [account.to_offset for account in found] == list(range(1, 1 + sum(p == partition for p, _ in published)))
        refused += sum(account.outcome == "dead-letter" for account in found)
        for account in found:
            assert (account.outcome == "sample") == bool(account.samples)
            assert account.samples or account.detail
    letters = world.broker.records(topics.EVENTS_DLQ.name)
    assert len(letters) == refused
    assert all(dict(letter.headers)[topics.DLQ_HEADER_REASON] not in (b"", b"failed") for letter in letters)


documents = st.sampled_from(["A text of its own, number one.", "A text of its own, number two."]).map(
    lambda t: Document(text=t)
)
plan = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 5), st.builds(fact, st.integers(0, 3)) | documents | halves),
    max_size=15,
)


@settings(max_examples=200)
@given(plan, st.data())
def test_killed_anywhere_and_shared_out_anew_all_ends_as_if_nothing_had_happened(
    published: list[tuple[int, int, EventData]], data: st.DataObject
) -> None:
    """Crashes before any step, and members that come and go."""
    rough = World(max_poll_records=3)
    for partition, event, content in published:
        rough.publish(content, f"e{event}", partition)
    crashes = data.draw(st.lists(st.integers(1, 40), max_size=5), label="steps until each crash")
    for steps in crashes:
        left = [steps]

        def on(step: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Crash(step)

        victim, bystander = rough.collector(on), rough.collector()
        try:
            for _ in range(5):
                victim.turn(rough.stop)
                bystander.turn(rough.stop)
        except Crash:
            pass
        victim.close()
        bystander.close()
    rough.work(rough.collector())
    for partition in (0, 1):
        found = [account.to_offset for account in accounts(rough.broker, partition)]
        assert found == list(range(1, 1 + sum(p == partition for p, _, _ in published)))
        # Every account that was ever written of a record says the same.
        written: dict[int, Any] = {}
        for record in rough.broker.records(topics.SAMPLES.name, partition):
            account = msgspec.json.decode(record.value)
            del account["from_offset"]
            assert written.setdefault(account["to_offset"], account) == account
    taken = [account for partition in (0, 1) for account in accounts(rough.broker, partition)]
    # Which of two equal events in two partitions is the first depends on who reads first; that one is, does not.
    counted = [account.event_id for account in taken if not (account.detail or "").startswith("the same event")]
    assert sorted(counted) == sorted({f"e{event}" for _, event, _ in published})
    texts = [sample.text for account in taken for sample in account.samples if sample.text is not None]
    assert len(texts) == len(set(texts))
    remembered = {change.entry_id for change in rough.memory.changes(None).changes if change.entry}
    assert remembered == {sample.id for account in taken for sample in account.samples}
