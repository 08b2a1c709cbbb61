"""What the broker in memory has beyond being a broker: its clock, its hooks, and that it is the same every time."""

from __future__ import annotations

import pytest

from lifelong.errors import UnreachableError
from lifelong.runtime.clock import Clock
from lifelong.stream.base import Partition
from lifelong.stream.memory import Fate, MemoryBroker


class Stopped(Clock):
    def now(self) -> float:
        return 1234.5678

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")


def test_time_is_the_clocks_in_milliseconds() -> None:
    broker = MemoryBroker(clock=Stopped())
    broker.sink().send("t", b"v", partition=0)
    assert broker.records("t")[0].time == 1234.567


@pytest.mark.parametrize("step", ["send", "flush", "poll", "commit"])
def test_every_step_may_be_made_to_fail(step: str) -> None:
    class CrashError(Exception):
        pass

    steps: list[str] = []

    def on(happening: str) -> None:
        steps.append(happening)
        if happening == step:
            raise CrashError

    broker = MemoryBroker({"t": 1})
    sink, member = broker.sink(on), broker.group_source(["t"], "g", on)

    def run() -> None:
        sink.send("t", b"v")
        sink.flush()
        member.poll(0)
        member.commit({Partition("t", 0): 1})

    with pytest.raises(CrashError):
        run()
    # It fails before anything has happened.
    assert len(broker.records("t")) == (0 if step == "send" else 1)
    assert broker.committed("g", Partition("t", 0)) is None
    assert steps[-1] == step


def test_two_runs_are_alike() -> None:
    def run() -> list[tuple[int, int, bytes | None]]:
        broker = MemoryBroker({"t": 3}, clock=Stopped())
        sink = broker.sink()
        for n in range(50):
            sink.send("t", b"%d" % n, key=b"%d" % (n % 7) if n % 2 else None)
        member, other = broker.group_source(["t"], "g"), broker.group_source(["t"], "g")
        records = member.poll(0, 5)
        other.close()
        records += member.poll(0)
        return [(r.partition, r.offset, r.value) for r in records]

    assert run() == run()


def test_groups_share_out_all_topics() -> None:
    broker = MemoryBroker({"a": 2, "b": 1})
    members = [broker.group_source(["a", "b"], "g") for _ in range(2)]
    for member in members:
        member.poll(0)
    owned = [set(member.assigned()) for member in members]
    assert owned[0] & owned[1] == set()
    assert owned[0] | owned[1] == {Partition("a", 0), Partition("a", 1), Partition("b", 0)}


def test_a_member_too_many_waits_for_its_turn() -> None:
    broker = MemoryBroker({"t": 1})
    first, second = broker.group_source(["t"], "g"), broker.group_source(["t"], "g")
    first.poll(0)
    second.poll(0)
    assert (len(first.assigned()), len(second.assigned())) == (1, 0)
    first.close()
    second.poll(0)
    assert len(second.assigned()) == 1


def test_who_is_taken_for_dead_commits_nothing_and_comes_back_as_a_new_member() -> None:
    broker = MemoryBroker({"t": 2})
    for partition in range(2):
        broker.sink().send("t", b"v", partition=partition)
    stalled, other = broker.group_source(["t"], "g"), broker.group_source(["t"], "g")
    (mine,) = stalled.poll(0)
    other.poll(0)
    stalled.evict()
    assert len(other.poll(0)) == 2
    stalled.commit({Partition("t", mine.partition): 1})
    assert broker.committed("g", Partition("t", mine.partition)) is None
    stalled.poll(0)
    assert (len(stalled.assigned()), len(other.assigned())) == (1, 2)
    other.poll(0)
    assert set(stalled.assigned()) | set(other.assigned()) == {Partition("t", 0), Partition("t", 1)}


def test_a_member_of_an_older_generation_commits_nothing() -> None:
    broker = MemoryBroker({"t": 1})
    broker.sink().send("t", b"v", partition=0)
    member = broker.group_source(["t"], "g")
    member.poll(0)
    broker.rebalance("g")
    member.commit({Partition("t", 0): 1})
    assert broker.committed("g", Partition("t", 0)) is None
    assert len(member.poll(0)) == 1


@pytest.mark.parametrize(
    ("fates", "written", "fails"),
    [
        (["twice", "written"], [b"0", b"0", b"1"], False),
        (["late", "written"], [b"0", b"1"], False),
        (["unknown", "written"], [b"0", b"1"], True),
        (["lost", "written"], [b"1"], True),
    ],
)
def test_what_may_become_of_a_record_that_is_sent(fates: list[Fate], written: list[bytes], fails: bool) -> None:
    broker = MemoryBroker({"t": 1})
    left = iter(fates)
    sink = broker.sink(fate=lambda: next(left))
    sink.send("t", b"0")
    sink.send("t", b"1")
    if "late" in fates:
        assert (broker.records("t"), sink.num_under_way) == ([], 2)
    if fails:
        with pytest.raises(UnreachableError):
            sink.flush()
    sink.flush()
    assert [record.value for record in broker.records("t")] == written


def test_what_is_under_way_arrives_after_its_sender_has_died() -> None:
    broker = MemoryBroker({"t": 1})
    sink = broker.sink(fate=lambda: "late")
    for n in range(3):
        sink.send("t", b"%d" % n)
    sink.deliver(2)
    assert [record.value for record in broker.records("t")] == [b"0", b"1"]
