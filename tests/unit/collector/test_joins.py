from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lifelong.collector.joins import MAX_HALVES, Half, LocalHalves, Side


def half(offset: int, side: Side, *, partition: int = 0, observation_id: str = "o", task: str = "t") -> Half:
    return Half(task, observation_id, partition, offset, side, f"{side} {offset}", f"e{offset}")


def offsets(halves: list[Half | None]) -> list[int | None]:
    return [None if found is None else found.offset for found in halves]


def test_a_label_finds_the_newest_input_before_it() -> None:
    halves = [half(0, "input"), half(1, "label"), half(2, "label"), half(3, "input"), half(4, "label")]
    assert offsets(LocalHalves().meet(halves)) == [None, 0, 0, None, 3]


def test_an_input_finds_the_label_that_came_first() -> None:
    halves = [half(0, "label"), half(1, "label"), half(2, "input"), half(3, "input")]
    assert offsets(LocalHalves().meet(halves)) == [None, None, 1, None]


def test_ids_tasks_and_partitions_are_kept_apart() -> None:
    halves = [
        half(0, "input"),
        half(1, "label", observation_id="p"),
        half(1, "label", task="u"),
        half(1, "label", partition=1),
    ]
    assert offsets(LocalHalves().meet(halves)) == [None] * 4


def test_what_is_kept_of_one_id_is_bounded() -> None:
    store = LocalHalves()
    store.meet([half(i, "label") for i in range(MAX_HALVES + 10)])
    assert offsets(store.meet([half(1000, "input")])) == [MAX_HALVES + 9]


@given(st.lists(st.sampled_from(["input", "label"]), min_size=1, max_size=20), st.data())
def test_every_replay_joins_the_same(sides: list[Side], data: st.DataObject) -> None:
    halves = [half(i, side) for i, side in enumerate(sides)]
    store = LocalHalves()
    first = store.meet(halves)
    at = data.draw(st.integers(0, len(halves)))
    assert store.meet(halves[at:]) == first[at:]
    assert store.meet(halves) == first
