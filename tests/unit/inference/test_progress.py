"""What may be committed while answers come in another order than their requests."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from lifelong.inference.progress import Progress
from lifelong.stream.base import Partition

P0, P1 = Partition("requests", 0), Partition("requests", 1)


def everything(ticket: int) -> bool:
    return True


def up_to(last: int) -> Callable[[int], bool]:
    return lambda ticket: ticket <= last


def begun(*offsets: int) -> Progress:
    progress = Progress()
    progress.assign({P0: None})
    assert all(progress.begin(P0, offset) for offset in offsets)
    return progress


def test_only_what_has_no_gap_before_it_is_done() -> None:
    progress = begun(0, 1, 2)
    progress.answered(P0, 2, 1)
    progress.answered(P0, 1, 2)
    assert progress.done(everything) == {}
    progress.answered(P0, 0, 3)
    assert progress.done(everything) == {P0: 3}


def test_an_answer_that_is_not_out_yet_is_not_done() -> None:
    progress = begun(0, 1)
    progress.answered(P0, 0, 1)
    progress.answered(P0, 1, 2)
    assert progress.done(up_to(1)) == {P0: 1}
    assert progress.done(up_to(2)) == {P0: 2}


def test_a_commit_that_failed_is_asked_for_again() -> None:
    progress = begun(0)
    progress.answered(P0, 0, 1)
    assert progress.done(everything) == {P0: 1}
    assert progress.num_open == 1
    assert progress.done(everything) == {P0: 1}
    progress.committed({P0: 1})
    assert progress.done(everything) == {}
    assert progress.num_open == 0


def test_a_commit_that_came_too_late_is_made_again() -> None:
    """While the group shares out its partitions anew, commits are dropped without a word."""
    progress = begun(0)
    progress.answered(P0, 0, 1)
    progress.committed(progress.done(everything))
    progress.assign({P0: None})
    assert not progress.begin(P0, 0)
    assert progress.done(everything) == {P0: 1}


def test_offsets_may_have_holes() -> None:
    progress = begun(10, 20)
    progress.answered(P0, 10, 1)
    progress.answered(P0, 20, 2)
    assert progress.done(everything) == {P0: 21}


def test_what_is_under_way_or_answered_is_not_begun_again() -> None:
    progress = begun(0, 1)
    progress.answered(P0, 0, 1)
    progress.done(everything)
    progress.assign({P0: None})
    assert not progress.begin(P0, 0)
    assert not progress.begin(P0, 1)
    assert progress.begin(P0, 2)


def test_a_partition_that_went_is_forgotten() -> None:
    progress = begun(0)
    progress.assign({P1: 5})
    progress.answered(P0, 0, 1)
    assert progress.done(everything) == {}
    assert progress.num_open == 0


def test_a_partition_that_went_and_came_back_starts_where_others_left_it() -> None:
    progress = begun(0, 1)
    progress.assign({})
    progress.assign({P0: 2})
    progress.answered(P0, 0, 1)
    assert progress.done(everything) == {}
    assert not progress.begin(P0, 1)
    assert progress.begin(P0, 2)


def test_what_is_given_back_and_all_behind_it_is_not_committed() -> None:
    progress = begun(0, 1, 2)
    progress.give_back(P0, 1)
    for offset in (0, 1, 2):
        progress.answered(P0, offset, 1)
    assert progress.done(everything) == {P0: 1}


@given(st.permutations(range(6)), st.integers(0, 6), st.integers(0, 6))
def test_never_more_is_committed_than_is_answered_and_out(order: list[int], num_answered: int, num_out: int) -> None:
    progress = begun(*range(6))
    for ticket, offset in enumerate(order[:num_answered], start=1):
        progress.answered(P0, offset, ticket)
    out = set(order[: min(num_answered, num_out)])
    expected = next((offset for offset in range(6) if offset not in out), 6)
    assert progress.done(up_to(num_out)).get(P0, 0) == expected
