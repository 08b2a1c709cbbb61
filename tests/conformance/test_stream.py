"""What every stream does, whichever broker it is on."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from tests.conformance.stream_worlds import KafkaWorld, MemoryWorld, World, read, settle

from lifelong.contracts.topics import EVENTS, MAX_MESSAGE_BYTES, SAMPLES
from lifelong.errors import StreamError, StreamGapError
from lifelong.stream.base import GroupSource, Partition, Sink

TOPIC = EVENTS.name
P0, P1 = Partition(TOPIC, 0), Partition(TOPIC, 1)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    opened: World = (
        MemoryWorld() if request.param == "memory" else KafkaWorld(request.getfixturevalue("kafka_settings"))
    )
    yield opened
    opened.close()


def fill(sink: Sink, num_p0: int, num_p1: int = 0, *, start: int = 0) -> None:
    for partition, number in ((0, num_p0), (1, num_p1)):
        for n in range(start, start + number):
            sink.send(TOPIC, f"{partition}-{n}".encode(), partition=partition)
    sink.flush()


def numbers(*members: GroupSource) -> list[list[int]]:
    return [sorted(p.number for p in member.assigned()) for member in members]


class TestSource:
    def test_keeps_the_order_within_a_partition(self, world: World) -> None:
        fill(world.sink(), 300, 200)
        source = world.source([TOPIC])
        source.seek({})
        records = read(source, 500)
        for partition, number in ((0, 300), (1, 200)):
            mine = [r for r in records if r.partition == partition]
            assert [r.offset for r in mine] == list(range(number))
            assert [r.value for r in mine] == [f"{partition}-{n}".encode() for n in range(number)]
        assert {r.topic for r in records} == {TOPIC}

    def test_starts_at_the_positions_and_else_at_the_beginning(self, world: World) -> None:
        fill(world.sink(), 5, 5)
        source = world.source([TOPIC])
        source.seek({P0: 3})
        records = read(source, 7)
        assert sorted((r.partition, r.offset) for r in records) == [(0, 3), (0, 4), *((1, n) for n in range(5))]

    def test_can_go_back(self, world: World) -> None:
        fill(world.sink(), 4)
        source = world.source([TOPIC])
        source.seek({})
        first = read(source, 4)
        source.seek({P0: 2})
        assert read(source, 2) == first[2:]

    def test_reads_what_comes_after_the_end(self, world: World) -> None:
        sink = world.sink()
        fill(sink, 3, 1)
        source = world.source([TOPIC])
        assert source.end_positions() == {P0: 3, P1: 1}
        source.seek(source.end_positions())
        assert source.poll(0.2) == []
        fill(sink, 1, start=3)
        assert [r.value for r in read(source, 1)] == [b"0-3"]

    def test_reads_several_topics(self, world: World) -> None:
        sink = world.sink()
        sink.send(EVENTS.name, b"event", partition=1)
        sink.send(SAMPLES.name, b"sample", partition=1)
        sink.flush()
        source = world.source([EVENTS.name, SAMPLES.name])
        source.seek({Partition(SAMPLES.name, 1): 0})
        assert {(r.topic, r.value) for r in read(source, 2)} == {(EVENTS.name, b"event"), (SAMPLES.name, b"sample")}

    def test_never_returns_more_than_asked_for(self, world: World) -> None:
        fill(world.sink(), 10, 10)
        source = world.source([TOPIC])
        source.seek({})
        polls = [source.poll(5.0, max_records=3) for _ in range(3)]
        assert all(0 < len(records) <= 3 for records in polls)

    def test_counts_what_is_pending(self, world: World) -> None:
        sink = world.sink()
        fill(sink, 6, 2)
        source = world.source([TOPIC])
        source.seek({P0: 1, P1: 0})
        assert source.pending() == {P0: 5, P1: 2}
        read(source, 7)
        assert source.pending() == {P0: 0, P1: 0}

    def test_names_the_gap_that_retention_made(self, world: World) -> None:
        fill(world.sink(), 10, 1)
        source = world.source([TOPIC])
        source.seek({P0: 2, P1: 1})
        world.delete_before(P0, 5)
        with pytest.raises(StreamGapError) as caught:
            settle_source(source)
        gap = caught.value
        assert (gap.topic.endswith(TOPIC), gap.partition, gap.wanted, gap.first, gap.end) == (True, 0, 2, 5, 10)
        assert not gap.retriable

    def test_goes_on_raising_after_a_gap(self, world: World) -> None:
        fill(world.sink(), 3)
        source = world.source([TOPIC])
        source.seek({P0: 0, P1: 0})
        world.delete_before(P0, 2)
        for _ in range(2):
            with pytest.raises(StreamGapError):
                settle_source(source)

    def test_can_go_on_behind_a_gap(self, world: World) -> None:
        fill(world.sink(), 6, 4)
        source = world.source([TOPIC])
        source.seek({P0: 1, P1: 2})
        world.delete_before(P0, 4)
        with pytest.raises(StreamGapError):
            settle_source(source)
        source.seek({P0: 4, P1: 2})
        assert sorted((r.partition, r.offset) for r in read(source, 4)) == [(0, 4), (0, 5), (1, 2), (1, 3)]

    def test_a_position_beyond_the_end_is_a_gap(self, world: World) -> None:
        """A topic that was made anew has fewer records than somebody once read of it."""
        fill(world.sink(), 3)
        source = world.source([TOPIC])
        source.seek({P0: 7})
        with pytest.raises(StreamGapError, match="7 is wanted"):
            settle_source(source)

    def test_a_position_in_a_partition_that_is_not_there_is_a_gap(self, world: World) -> None:
        with pytest.raises(StreamGapError, match="partition 5"):
            world.source([TOPIC]).seek({Partition(TOPIC, 5): 7})

    def test_the_beginning_is_the_first_record_that_is_left(self, world: World) -> None:
        fill(world.sink(), 6)
        world.delete_before(P0, 4)
        source = world.source([TOPIC])
        source.seek({})
        assert [r.offset for r in read(source, 2)] == [4, 5]

    def test_may_be_closed_twice(self, world: World) -> None:
        source = world.source([TOPIC])
        source.close()
        source.close()


class TestSink:
    def test_preserves_everything(self, world: World) -> None:
        sink = world.sink()
        sink.send(TOPIC, b"v", key=b"k", partition=0, headers=[("a", b"1"), ("a", b""), ("ü", b"\xff")], time=1234.567)
        sink.send(TOPIC, None, key=b"k", partition=0)
        sink.send(TOPIC, b"", partition=0)
        sink.flush()
        source = world.source([TOPIC])
        source.seek({})
        full, none, empty = read(source, 3)
        assert (full.key, full.value, full.time) == (b"k", b"v", 1234.567)
        assert full.headers == (("a", b"1"), ("a", b""), ("ü", b"\xff"))
        assert (none.key, none.value, none.headers) == (b"k", None, ())
        assert (empty.key, empty.value) == (None, b"")
        assert none.time > 1.6e9

    def test_one_key_is_one_partition(self, world: World) -> None:
        sink = world.sink()
        keys = [f"user-{n}".encode() for n in range(20)]
        for n in range(100):
            sink.send(TOPIC, b"%d" % n, key=keys[n % len(keys)])
        sink.flush()
        source = world.source([TOPIC])
        source.seek({})
        records = read(source, 100)
        where = {key: {r.partition for r in records if r.key == key} for key in keys}
        assert all(len(partitions) == 1 for partitions in where.values())
        assert set.union(*where.values()) == {0, 1}
        for key in keys:
            values = [int(r.value or b"") for r in records if r.key == key]
            assert values == sorted(values)

    def test_ten_megabytes_pass(self, world: World) -> None:
        sink = world.sink()
        large = random.Random(1).randbytes(10_000_000)
        for value in (b"before", large, b"after"):
            sink.send(TOPIC, value, partition=0)
        sink.flush()
        source = world.source([TOPIC])
        source.seek({})
        assert [r.value for r in read(source, 3)] == [b"before", large, b"after"]

    def test_flush_says_what_the_broker_refused(self, world: World) -> None:
        sink = world.sink()
        world.limit(TOPIC, 10_000)
        sink.send(TOPIC, random.Random(1).randbytes(50_000), partition=0)
        with pytest.raises(StreamError) as caught:
            sink.flush()
        assert not caught.value.retriable
        # It was said, and what comes after is not to blame.
        sink.send(TOPIC, b"small", partition=0)
        sink.flush()
        source = world.source([TOPIC])
        source.seek({})
        assert [r.value for r in read(source, 1)] == [b"small"]

    def test_what_is_too_large_harms_nobody_else(self, world: World) -> None:
        sink = world.sink()

        def write() -> None:
            sink.send(TOPIC, random.Random(1).randbytes(MAX_MESSAGE_BYTES + 1), partition=0)
            sink.flush()

        sink.send(TOPIC, b"before", partition=0)
        with pytest.raises(StreamError):
            write()
        sink.send(TOPIC, b"after", partition=0)
        sink.flush()
        source = world.source([TOPIC])
        source.seek({})
        assert [r.value for r in read(source, 2)] == [b"before", b"after"]

    def test_refuses_a_partition_that_is_not_there(self, world: World) -> None:
        sink = world.sink()

        def write() -> None:
            sink.send(TOPIC, b"v", partition=2)
            sink.flush()

        with pytest.raises(StreamError, match="no partition 2"):
            write()

    def test_refuses_a_record_of_nothing(self, world: World) -> None:
        with pytest.raises(ValueError, match="a key or a value"):
            world.sink().send(TOPIC, None)

    def test_may_be_closed_twice(self, world: World) -> None:
        sink = world.sink()
        sink.close()
        sink.close()


class TestGroupSource:
    def test_begins_at_the_beginning(self, world: World) -> None:
        fill(world.sink(), 3, 2)
        member = world.group_source([TOPIC], "g")
        before = member.generation
        read(member, 5)
        assert member.assigned() == {P0: None, P1: None}
        assert member.pending() == {P0: 0, P1: 0}
        assert member.generation >= before

    def test_goes_on_where_it_committed(self, world: World) -> None:
        fill(world.sink(), 5, 3)
        first = world.group_source([TOPIC], "g")
        read(first, 8)
        first.commit({P0: 4})
        first.close()
        second = world.group_source([TOPIC], "g")
        records = read(second, 4)
        assert sorted((r.partition, r.offset) for r in records) == [(0, 4), (1, 0), (1, 1), (1, 2)]
        assert second.assigned() == {P0: 4, P1: None}

    def test_what_was_committed_when_it_became_ours_stays_so(self, world: World) -> None:
        fill(world.sink(), 2, 1)
        member = world.group_source([TOPIC], "g")
        read(member, 3)
        member.commit({P0: 2})
        assert member.assigned() == {P0: None, P1: None}

    def test_groups_do_not_disturb_each_other(self, world: World) -> None:
        fill(world.sink(), 2)
        one, other = world.group_source([TOPIC], "one"), world.group_source([TOPIC], "other")
        read(one, 2)
        one.commit({P0: 2})
        assert len(read(other, 2)) == 2

    def test_two_members_share(self, world: World) -> None:
        sink = world.sink()
        one, two = world.group_source([TOPIC], "g"), world.group_source([TOPIC], "g")
        settle(lambda: sorted(numbers(one, two)) == [[0], [1]], one, two)
        fill(sink, 4, 4)
        seen = {one: read(one, 4), two: read(two, 4)}
        for member, records in seen.items():
            assert {Partition(r.topic, r.partition) for r in records} == set(member.assigned())
            assert [r.offset for r in records] == [0, 1, 2, 3]

    def test_the_other_takes_over(self, world: World) -> None:
        """From what was committed: what was only read comes again."""
        sink = world.sink()
        one, two = world.group_source([TOPIC], "g"), world.group_source([TOPIC], "g")
        settle(lambda: sorted(numbers(one, two)) == [[0], [1]], one, two)
        fill(sink, 4, 4)
        read(one, 4)
        read(two, 4)
        (gone,), (kept,) = one.assigned(), two.assigned()
        one.commit({gone: 1})
        two.commit({kept: 4})
        generation = two.generation
        one.close()
        again = settle(lambda: numbers(two) == [[0, 1]], two)[0]
        assert two.generation > generation
        assert two.assigned() == {gone: 1, kept: 4}
        again += read(two, 3 - len(again))
        assert [(r.partition, r.offset) for r in again] == [(gone.number, n) for n in (1, 2, 3)]

    def test_partitions_that_stay_are_read_again_from_what_was_committed(self, world: World) -> None:
        """Every change of hands gives all partitions up, so nobody may go on from what it has in its head."""
        fill(world.sink(), 5, 5)
        one = world.group_source([TOPIC], "g")
        read(one, 10)
        one.commit({P0: 2, P1: 3})
        two = world.group_source([TOPIC], "g")
        seen = settle(lambda: sorted(numbers(one, two)) == [[0], [1]], one, two)
        assert one.assigned() | two.assigned() == {P0: 2, P1: 3}
        for index, member in enumerate((one, two)):
            (mine,) = member.assigned()
            start = {P0: 2, P1: 3}[mine]
            records = seen[index]
            records += read(member, 5 - start - len(records))
            assert [(r.partition, r.offset) for r in records] == [(mine.number, n) for n in range(start, 5)]

    def test_does_not_commit_what_others_have(self, world: World) -> None:
        fill(world.sink(), 3, 3)
        one = world.group_source([TOPIC], "g")
        read(one, 6)
        two = world.group_source([TOPIC], "g")
        settle(lambda: sorted(numbers(one, two)) == [[0], [1]], one, two)
        (kept,), (lost,) = one.assigned(), two.assigned()
        one.commit({kept: 3, lost: 3})
        one.close()
        settle(lambda: numbers(two) == [[0, 1]], two)
        assert two.assigned() == {kept: 3, lost: None}

    def test_a_commit_that_comes_too_late_is_dropped(self, world: World) -> None:
        fill(world.sink(), 3, 3)
        one = world.group_source([TOPIC], "g")
        read(one, 6)
        one.close()
        two = world.group_source([TOPIC], "g")
        one.commit({P0: 3, P1: 3})
        settle(lambda: numbers(two) == [[0, 1]], two)
        assert two.assigned() == {P0: None, P1: None}

    def test_can_go_on_behind_a_gap(self, world: World) -> None:
        fill(world.sink(), 6, 6)
        one = world.group_source([TOPIC], "g")
        read(one, 12)
        one.commit({P0: 2, P1: 1})
        one.close()
        world.delete_before(P0, 4)
        world.delete_before(P1, 3)
        two = world.group_source([TOPIC], "g")
        found: list[tuple[int, int]] = []
        deadline = time.monotonic() + 60
        while len(found) < 5:
            assert time.monotonic() < deadline
            try:
                found += [(record.partition, record.offset) for record in two.poll(0.2)]
            except StreamGapError as gap:
                two.skip_to(Partition(TOPIC, gap.partition), gap.first)
        assert sorted(found) == [(0, 4), (0, 5), (1, 3), (1, 4), (1, 5)]
        assert two.assigned() == {P0: 2, P1: 1}

    def test_a_position_that_retention_deleted_is_a_gap(self, world: World) -> None:
        fill(world.sink(), 6)
        one = world.group_source([TOPIC], "g")
        read(one, 6)
        one.commit({P0: 2})
        one.close()
        world.delete_before(P0, 5)
        two = world.group_source([TOPIC], "g")
        with pytest.raises(StreamGapError, match="2 is wanted"):
            settle(lambda: False, two)

    def test_counts_what_is_pending(self, world: World) -> None:
        sink = world.sink()
        fill(sink, 6, 2)
        member = world.group_source([TOPIC], "g")
        read(member, 8)
        assert member.pending() == {P0: 0, P1: 0}
        fill(sink, 3, start=6)
        read(member, 1, max_records=1)
        assert member.pending() == {P0: 2, P1: 0}

    def test_may_be_closed_twice(self, world: World) -> None:
        member = world.group_source([TOPIC], "g")
        member.poll(0.1)
        member.close()
        member.close()


def settle_source(source: object) -> None:
    """Polls until it raises: on Kafka the first polls may only fetch."""
    read(source, 10**9)
