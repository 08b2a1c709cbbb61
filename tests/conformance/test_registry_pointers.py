"""What both kinds of pointers must do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from lifelong.contracts import redis_keys
from lifelong.errors import ConfigError, FencedError, RegistryError, UnreachableError
from lifelong.local.ports import free_port
from lifelong.registry.base import Pointers, PointerState
from lifelong.registry.pointers import LocalPointers, RedisPointers
from lifelong.runtime.clock import ManualClock

TTL = 60.0
RunOut = Callable[[], None]


@pytest.fixture(params=["local", "redis"])
def both(request: pytest.FixtureRequest, fresh_line: str) -> Iterator[tuple[Pointers, RunOut]]:
    """The pointers, and what makes the lease of ``fresh_line`` run out at once."""
    if request.param == "local":
        clock = ManualClock()
        yield LocalPointers(clock), lambda: clock.advance(TTL + 1)
        return
    url = request.getfixturevalue("redis_url")
    pointers, client = RedisPointers(url), redis.Redis.from_url(url)
    yield pointers, lambda: None if client.delete(redis_keys.lease(fresh_line)) else pytest.fail("there is no lease")
    client.close()
    pointers.close()


@pytest.fixture
def pointers(both: tuple[Pointers, RunOut]) -> Pointers:
    return both[0]


@pytest.fixture
def run_out(both: tuple[Pointers, RunOut]) -> RunOut:
    return both[1]


def epoch_of(pointers: Pointers, line: str, writer: str = "w") -> int:
    epoch = pointers.acquire(line, writer, TTL, 0)
    assert epoch is not None
    return epoch


def test_nothing_is_known_at_first(pointers: Pointers, fresh_line: str) -> None:
    assert pointers.read(fresh_line) is None
    assert pointers.writer(fresh_line) is None
    with pytest.raises(RegistryError, match=fresh_line):
        pointers.move(fresh_line, epoch=1, candidate=1, live=1, now=5.0)
    with pytest.raises(RegistryError, match=fresh_line):
        pointers.set_live(fresh_line, 1, held=True, now=5.0)
    assert pointers.read(fresh_line) is None


def test_restore_only_where_there_is_nothing(pointers: Pointers, fresh_line: str) -> None:
    state = PointerState(live=4, candidate=5, epoch=3, held=True, moved=1234.5678901, restored="r")
    assert pointers.restore(fresh_line, state) == state
    assert pointers.read(fresh_line) == state
    assert pointers.restore(fresh_line, PointerState(live=1)) == state
    assert pointers.read(fresh_line) == state


def test_restore_does_not_turn_the_epoch_back(pointers: Pointers, fresh_line: str) -> None:
    assert pointers.acquire(fresh_line, "w", TTL, 7) == 8
    assert pointers.read(fresh_line) is None
    assert pointers.restore(fresh_line, PointerState(live=2, candidate=2, epoch=5)).epoch == 8


def test_one_writer_at_a_time(pointers: Pointers, fresh_line: str) -> None:
    assert pointers.acquire(fresh_line, "first", TTL, 0) == 1
    assert pointers.writer(fresh_line) == "first"
    assert pointers.acquire(fresh_line, "second", TTL, 0) is None
    assert pointers.renew(fresh_line, "first", TTL)
    assert not pointers.renew(fresh_line, "second", TTL)
    pointers.release(fresh_line, "second")
    assert pointers.writer(fresh_line) == "first"
    pointers.release(fresh_line, "first")
    assert pointers.writer(fresh_line) is None
    assert pointers.acquire(fresh_line, "second", TTL, 0) == 2
    assert not pointers.renew(fresh_line, "first", TTL)


def test_epochs_only_grow(pointers: Pointers, fresh_line: str, run_out: RunOut) -> None:
    epochs = []
    for at_least in (0, 0, 10, 3):
        epoch = pointers.acquire(fresh_line, f"w{len(epochs)}", TTL, at_least)
        assert epoch is not None
        epochs.append(epoch)
        run_out()
    assert epochs == [1, 2, 11, 12]


def test_a_dead_writer_is_replaced_and_finds_out(pointers: Pointers, fresh_line: str, run_out: RunOut) -> None:
    assert pointers.acquire(fresh_line, "dead", TTL, 0) == 1
    run_out()
    assert pointers.writer(fresh_line) is None
    assert pointers.acquire(fresh_line, "successor", TTL, 0) == 2
    assert not pointers.renew(fresh_line, "dead", TTL)
    pointers.release(fresh_line, "dead")
    assert pointers.renew(fresh_line, "successor", TTL)


def test_a_stalled_writer_goes_on_if_nobody_took_over(pointers: Pointers, fresh_line: str, run_out: RunOut) -> None:
    assert pointers.acquire(fresh_line, "stalled", TTL, 0) == 1
    run_out()
    assert pointers.renew(fresh_line, "stalled", TTL)
    assert pointers.acquire(fresh_line, "other", TTL, 0) is None


def test_a_stalled_writer_stops_if_somebody_was_there_meanwhile(
    pointers: Pointers, fresh_line: str, run_out: RunOut
) -> None:
    assert pointers.acquire(fresh_line, "stalled", TTL, 0) == 1
    run_out()
    assert pointers.acquire(fresh_line, "other", TTL, 0) == 2
    pointers.release(fresh_line, "other")
    assert not pointers.renew(fresh_line, "stalled", TTL)


def test_a_lease_that_the_store_has_lost_is_taken_up_again(pointers: Pointers, fresh_line: str) -> None:
    pointers.restore(fresh_line, PointerState(live=2, candidate=2, epoch=4))
    # As after a loss: rebuilt from the manifests, and nothing is known of writers.
    assert not pointers.renew(fresh_line, "w", TTL)
    assert pointers.reclaim(fresh_line, "w", TTL, 5)
    assert pointers.renew(fresh_line, "w", TTL)
    assert pointers.writer(fresh_line) == "w"
    state = pointers.read(fresh_line)
    assert state is not None
    assert state.epoch == 5
    assert not pointers.reclaim(fresh_line, "other", TTL, 9)


def test_a_lease_is_not_taken_up_again_where_somebody_was_since(
    pointers: Pointers, fresh_line: str, run_out: RunOut
) -> None:
    assert pointers.acquire(fresh_line, "successor", TTL, 0) == 1
    assert not pointers.reclaim(fresh_line, "stalled", TTL, 9)
    run_out()
    assert not pointers.reclaim(fresh_line, "stalled", TTL, 9)
    pointers.release(fresh_line, "successor")
    assert not pointers.reclaim(fresh_line, "stalled", TTL, 9)
    pointers.restore(f"{fresh_line}-b", PointerState(epoch=7))
    assert not pointers.reclaim(f"{fresh_line}-b", "stalled", TTL, 6)
    assert pointers.acquire(fresh_line, "next", TTL, 0) == 2


def test_a_writer_moves_both_or_only_the_candidate(pointers: Pointers, fresh_line: str) -> None:
    pointers.restore(fresh_line, PointerState())
    epoch = epoch_of(pointers, fresh_line)
    state = pointers.move(fresh_line, epoch=epoch, candidate=1, live=1, now=10.25)
    assert state == PointerState(live=1, candidate=1, epoch=epoch, moved=10.25)
    state = pointers.move(fresh_line, epoch=epoch, candidate=2, live=None, now=11.0)
    assert state == PointerState(live=1, candidate=2, epoch=epoch, moved=10.25)
    # It moved when it became live, not when that was said again.
    assert pointers.move(fresh_line, epoch=epoch, candidate=2, live=1, now=12.0).moved == 10.25
    assert pointers.read(fresh_line) == state


def test_an_older_epoch_moves_nothing(pointers: Pointers, fresh_line: str, run_out: RunOut) -> None:
    pointers.restore(fresh_line, PointerState())
    old = epoch_of(pointers, fresh_line, "old")
    run_out()
    new = epoch_of(pointers, fresh_line, "new")
    before = pointers.read(fresh_line)
    with pytest.raises(FencedError, match=f"{old} is over, {new}"):
        pointers.move(fresh_line, epoch=old, candidate=9, live=9, now=10.0)
    assert pointers.read(fresh_line) == before
    assert pointers.move(fresh_line, epoch=new, candidate=1, live=1, now=10.0).live == 1


def test_of_two_writers_with_one_epoch_the_newer_one_moves(
    pointers: Pointers, fresh_line: str, run_out: RunOut
) -> None:
    """As it comes about where the store was lost between the two, and with it the epoch of the first."""
    epoch = epoch_of(pointers, fresh_line, "first")
    pointers.restore(fresh_line, PointerState(epoch=epoch))
    run_out()
    again = pointers.acquire(fresh_line, "second", TTL, 0)
    assert again is not None
    with pytest.raises(FencedError, match="another writer"):
        pointers.move(fresh_line, epoch=again, candidate=1, live=1, now=5.0, writer="first")
    assert pointers.move(fresh_line, epoch=again, candidate=1, live=1, now=5.0, writer="second").live == 1
    pointers.release(fresh_line, "second")
    with pytest.raises(FencedError, match="another writer"):
        pointers.move(fresh_line, epoch=again, candidate=2, live=2, now=6.0, writer="first")


def test_an_epoch_that_the_store_lost_counts(pointers: Pointers, fresh_line: str) -> None:
    pointers.restore(fresh_line, PointerState(epoch=2))
    assert pointers.move(fresh_line, epoch=4, candidate=1, live=1, now=10.0).epoch == 4
    with pytest.raises(FencedError):
        pointers.move(fresh_line, epoch=3, candidate=2, live=2, now=11.0)


def test_a_held_line_stays_where_it_is(pointers: Pointers, fresh_line: str) -> None:
    pointers.restore(fresh_line, PointerState(live=5, candidate=5))
    epoch = epoch_of(pointers, fresh_line)
    assert pointers.set_live(fresh_line, 3, held=True, now=20.0) == PointerState(3, 5, epoch, True, 20.0)
    assert pointers.move(fresh_line, epoch=epoch, candidate=6, live=6, now=21.0) == PointerState(
        3, 6, epoch, True, 20.0
    )
    assert pointers.set_live(fresh_line, 6, held=False, now=22.0) == PointerState(6, 6, epoch, False, 22.0)
    assert pointers.move(fresh_line, epoch=epoch, candidate=7, live=7, now=23.0).live == 7


def test_lines_are_apart(pointers: Pointers, fresh_line: str) -> None:
    other = f"{fresh_line}-student"
    pointers.restore(fresh_line, PointerState(live=5))
    assert pointers.read(other) is None
    assert pointers.acquire(fresh_line, "a", TTL, 0) == 1
    assert pointers.acquire(other, "b", TTL, 0) == 1


def test_of_many_at_once_one_gets_the_lease(pointers: Pointers, fresh_line: str) -> None:
    start = threading.Barrier(8)
    epochs: list[int | None] = []

    def take(number: int) -> None:
        start.wait()
        epochs.append(pointers.acquire(fresh_line, f"w{number}", TTL, 0))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [epoch for epoch in epochs if epoch is not None] == [1]


def test_a_lease_in_redis_runs_out_by_itself(redis_url: str, fresh_line: str) -> None:
    pointers = RedisPointers(redis_url)
    assert pointers.acquire(fresh_line, "dead", 0.2, 0) == 1
    deadline = time.monotonic() + 30
    while (epoch := pointers.acquire(fresh_line, "successor", TTL, 0)) is None:
        assert time.monotonic() < deadline, "the lease never ran out"
        time.sleep(0.01)
    assert epoch == 2
    pointers.close()


def test_redis_that_is_down_is_one_retriable_error() -> None:
    pointers = RedisPointers(f"redis://:secret@127.0.0.1:{free_port()}/0")
    with pytest.raises(UnreachableError, match="does not answer") as caught:
        pointers.read("lifelong")
    assert caught.value.retriable
    assert "secret" not in str(caught.value)
    with pytest.raises(UnreachableError):
        pointers.acquire("lifelong", "w", TTL, 0)
    pointers.close()


def test_wrong_password_is_a_wrong_setting(redis_url: str) -> None:
    pointers = RedisPointers(redis_url.replace("redis://", "redis://nobody:secret@"))
    with pytest.raises(ConfigError, match=r"redis\.url") as caught:
        pointers.read("lifelong")
    assert "secret" not in str(caught.value)
    pointers.close()


def test_no_redis_url_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"redis\.url"):
        RedisPointers("http://127.0.0.1")
