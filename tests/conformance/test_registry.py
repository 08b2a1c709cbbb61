"""The registry on what it runs on in production, and on what it runs on in simulations."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from tests.conformance.versions import manifest

from lifelong.contracts import redis_keys
from lifelong.errors import CorruptVersionError, FencedError, RegistryError, UnknownVersionError, UnreachableError
from lifelong.registry.base import Pointers, PointerState
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.in_memory import InMemoryStore
from lifelong.registry.layout import new_folder
from lifelong.registry.local import LocalPointers
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry
from lifelong.registry.writer import Writer, acquire_writer
from lifelong.runtime.clock import ManualClock

WEIGHTS = "adapter.safetensors"


@pytest.fixture(params=["local", "real"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    clock = ManualClock()
    if request.param == "local":
        yield Registry(InMemoryStore(), LocalPointers(clock), clock)
        return
    pointers = RedisPointers(request.getfixturevalue("redis_url"))
    yield Registry(DirectoryStore(tmp_path / "artifacts"), pointers, clock)
    pointers.close()


@pytest.fixture
def writer(registry: Registry, fresh_line: str) -> Iterator[Writer]:
    with taken(registry, fresh_line, "first") as writer:
        yield writer


def taken(registry: Registry, line: str, name: str) -> Writer:
    writer = acquire_writer(registry, line, name, 0, threading.Event(), ttl_seconds=60, heartbeat=False)
    assert writer is not None
    return writer


def learn(registry: Registry, writer: Writer, verdicts: str) -> None:
    """One version for each letter, ``y`` accepted and promoted, ``n`` rejected."""
    newest = registry.newest(writer.line)
    first = newest.number + 1 if newest else 1
    for number, verdict in enumerate(verdicts, first):
        whole = manifest(writer.line, number, epoch=writer.epoch, accepted=verdict == "y")
        registry.commit(whole, {WEIGHTS: b"%d" % number, "optimizer.safetensors": b"o"})
        if verdict == "y":
            registry.promote(writer.line, number, epoch=writer.epoch)


def kept(registry: Registry, line: str) -> list[int]:
    """The versions that still have their weights."""
    numbers = []
    for whole in registry.versions(line):
        try:
            registry.weights(whole, WEIGHTS)
            numbers.append(whole.number)
        except CorruptVersionError:
            pass
    return numbers


def test_a_new_line_is_the_base_model(registry: Registry, fresh_line: str) -> None:
    assert registry.newest(fresh_line) is None
    state = registry.state(fresh_line)
    assert state.restored
    assert state == PointerState(restored=state.restored)
    assert registry.versions(fresh_line) == []
    assert registry.release(fresh_line).live == 0
    assert registry.prune(fresh_line, 2) == []
    with pytest.raises(UnknownVersionError, match="nothing before"):
        registry.rollback(fresh_line)
    with pytest.raises(UnknownVersionError):
        registry.manifest(fresh_line, 0)


def test_commit_and_promote(registry: Registry, writer: Writer) -> None:
    learn(registry, writer, "yyn")
    newest = registry.newest(writer.line)
    assert newest is not None
    assert newest.number == 3
    assert registry.weights(newest, WEIGHTS) == b"3"
    state = registry.state(writer.line)
    assert (state.live, state.candidate, state.epoch) == (2, 2, writer.epoch)
    assert [whole.number for whole in registry.versions(writer.line)] == [1, 2, 3]
    assert [whole.number for whole in registry.versions(writer.line, limit=2)] == [2, 3]
    assert registry.versions(writer.line, limit=0) == []
    with pytest.raises(CorruptVersionError, match=r"'fisher\.safetensors'"):
        registry.weights(newest, "fisher.safetensors")


def test_a_version_may_share_its_parents_files(registry: Registry, writer: Writer) -> None:
    learn(registry, writer, "y")
    parent = registry.manifest(writer.line, 1)
    child = msgspec.structs.replace(
        manifest(writer.line, 2, epoch=writer.epoch, accepted=False), folder=parent.folder, files=parent.files
    )
    registry.commit(child, {})
    assert registry.weights(registry.manifest(writer.line, 2), WEIGHTS) == b"1"


def test_only_what_exists_can_go_live(registry: Registry, writer: Writer) -> None:
    learn(registry, writer, "y")
    for act in (
        lambda: registry.promote(writer.line, 2, epoch=writer.epoch),
        lambda: registry.rollback(writer.line, 2),
    ):
        with pytest.raises(UnknownVersionError, match="@2"):
            act()
    assert registry.state(writer.line).live == 1


def test_rollback_goes_past_rejected_versions_and_holds(registry: Registry, writer: Writer) -> None:
    learn(registry, writer, "yynny")
    assert registry.rollback(writer.line).live == 2
    learn(registry, writer, "y")
    state = registry.state(writer.line)
    assert (state.live, state.candidate, state.held) == (2, 6, True)
    assert registry.rollback(writer.line).live == 1
    assert registry.rollback(writer.line).live == 0
    assert registry.rollback(writer.line, 5).live == 5
    state = registry.release(writer.line)
    assert (state.live, state.held) == (6, False)
    learn(registry, writer, "y")
    assert registry.state(writer.line).live == 7


def test_lost_pointers_are_restored_from_the_manifests(registry: Registry, writer: Writer, redis_url: str) -> None:
    learn(registry, writer, "yyn")
    before = registry.state(writer.line)
    lost = lose_pointers(registry, writer.line, redis_url)
    state = lost.state(writer.line)
    assert (state.live, state.candidate, state.epoch, state.held) == (2, 2, before.epoch, False)
    assert lost.pointers.read(writer.line) == state
    # The next writer's epoch is newer than everything that was ever committed.
    assert taken(lost, writer.line, "second").epoch == before.epoch + 1
    with pytest.raises(FencedError):
        lost.commit(manifest(writer.line, 4, epoch=writer.epoch), {WEIGHTS: b"4"})


def lose_pointers(registry: Registry, line: str, redis_url: str) -> Registry:
    if isinstance(registry.pointers, RedisPointers):
        with redis.Redis.from_url(redis_url) as client:
            client.delete(redis_keys.pointers(line), redis_keys.lease(line))
        return registry
    return Registry(registry.store, LocalPointers(registry.clock), registry.clock)


def test_a_writer_that_was_replaced_can_do_nothing(registry: Registry, writer: Writer, fresh_line: str) -> None:
    learn(registry, writer, "y")
    writer.close()
    with taken(registry, fresh_line, "second") as successor:
        learn(registry, successor, "y")
        with pytest.raises(FencedError, match="is over"):
            registry.commit(manifest(fresh_line, 3, epoch=writer.epoch), {WEIGHTS: b"zombie"})
        with pytest.raises(FencedError, match="is over"):
            registry.promote(fresh_line, 1, epoch=writer.epoch)
        writer.beat()
        with pytest.raises(FencedError):
            writer.check()
        successor.check()
    assert [whole.epoch for whole in registry.versions(fresh_line)] == [writer.epoch, successor.epoch]
    assert registry.state(fresh_line).live == 2


def test_a_successor_promotes_what_was_committed_last(registry: Registry, writer: Writer, fresh_line: str) -> None:
    learn(registry, writer, "y")
    registry.commit(manifest(fresh_line, 2, epoch=writer.epoch), {WEIGHTS: b"2"})
    registry.commit(manifest(fresh_line, 3, epoch=writer.epoch, accepted=False), {WEIGHTS: b"3"})
    assert registry.state(fresh_line).live == 1
    writer.close()
    with taken(registry, fresh_line, "second") as successor:
        state = registry.catch_up(fresh_line, epoch=successor.epoch)
        assert (state.live, state.candidate) == (2, 2)
        assert registry.catch_up(fresh_line, epoch=successor.epoch) == state


def test_a_second_writer_waits_or_is_told_who_has_it(registry: Registry, writer: Writer, fresh_line: str) -> None:
    with pytest.raises(RegistryError, match="first"):
        taken(registry, fresh_line, "second")
    stop = threading.Event()
    stop.set()
    assert acquire_writer(registry, fresh_line, "second", None, stop) is None
    told: list[str] = []

    def tell(why: str) -> None:
        told.append(why)
        stop.set()

    stop.clear()
    assert acquire_writer(registry, fresh_line, "second", None, stop, tell=tell) is None
    assert told == ["first has the lease"]


def test_a_standby_takes_over_when_the_writer_goes(registry: Registry, writer: Writer, fresh_line: str) -> None:
    found: list[Writer | None] = []
    stop = threading.Event()
    standby = threading.Thread(
        target=lambda: found.append(acquire_writer(registry, fresh_line, "second", None, stop, ttl_seconds=1))
    )
    standby.start()
    try:
        writer.close()
        standby.join(60)
        assert found
    finally:
        stop.set()
        standby.join()
    assert found[0] is not None
    assert found[0].epoch == writer.epoch + 1
    found[0].close()


def test_the_heartbeat_keeps_the_lease_and_notices_its_loss(registry: Registry, fresh_line: str) -> None:
    counted = Counted(registry.pointers)
    beating = acquire_writer(
        Registry(registry.store, counted, registry.clock), fresh_line, "first", 0, threading.Event(), ttl_seconds=0.3
    )
    assert beating is not None
    assert counted.wait_for(5)
    assert not beating.lost.is_set()
    registry.pointers.release(fresh_line, "first")
    assert registry.pointers.acquire(fresh_line, "thief", 60, 0) == beating.epoch + 1
    assert beating.lost.wait(60)
    beating.close()
    assert registry.pointers.writer(fresh_line) == "thief"


class Counted:
    """Pointers that tell of every renewal."""

    def __init__(self, pointers: Pointers) -> None:
        self._pointers = pointers
        self._renewed = threading.Semaphore(0)

    def wait_for(self, num: int) -> bool:
        return all(self._renewed.acquire(timeout=60) for _ in range(num))

    def renew(self, line: str, writer: str, ttl_seconds: float) -> bool:
        renewed = self._pointers.renew(line, writer, ttl_seconds)
        if renewed:
            self._renewed.release()
        return renewed

    def __getattr__(self, name: str) -> object:
        return getattr(self._pointers, name)


def test_prune_keeps_the_newest(registry: Registry, writer: Writer) -> None:
    learn(registry, writer, "yyyyyy")
    dropped = registry.prune(writer.line, 2)
    assert len(dropped) == 3
    # Two, and the one that a rollback from the older of them goes to.
    assert kept(registry, writer.line) == [4, 5, 6]
    assert [whole.number for whole in registry.versions(writer.line)] == [1, 2, 3, 4, 5, 6]
    assert registry.prune(writer.line, 2) == []


def test_prune_keeps_what_is_live_and_what_a_rollback_needs(registry: Registry, writer: Writer) -> None:
    learn(registry, writer, "yyynn")
    registry.rollback(writer.line, 3)
    learn(registry, writer, "nnyn")
    registry.prune(writer.line, 1)
    # Newest 9 with its ancestor 8, live 3 with its ancestor 2, candidate 8 with its ancestors down to 3.
    assert kept(registry, writer.line) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert registry.rollback(writer.line).live == 2
    with pytest.raises(CorruptVersionError, match="keep_versions"):
        registry.rollback(writer.line, 1)
    assert registry.state(writer.line).live == 2


def test_prune_keeps_files_that_a_newer_version_shares(registry: Registry, writer: Writer) -> None:
    learn(registry, writer, "y")
    parent = registry.manifest(writer.line, 1)
    for number in range(2, 8):
        child = manifest(writer.line, number, epoch=writer.epoch)
        registry.commit(msgspec.structs.replace(child, folder=parent.folder, files=parent.files), {})
    assert registry.prune(writer.line, 1) == []
    assert kept(registry, writer.line) == [1, 2, 3, 4, 5, 6, 7]


def test_prune_clears_what_interrupted_writers_left(registry: Registry, writer: Writer) -> None:
    learn(registry, writer, "yy")
    left, being_written = new_folder(writer.line, 2, writer.epoch), new_folder(writer.line, 3, writer.epoch)
    registry.store.put(left, {WEIGHTS: b"half"})
    registry.store.put(being_written, {WEIGHTS: b"half"})
    assert registry.prune(writer.line, 5) == [left]
    assert being_written in registry.store.folders(writer.line)


def test_a_writer_waits_for_a_store_that_is_away(
    registry: Registry, fresh_line: str, caplog: pytest.LogCaptureFixture
) -> None:
    away = Away(registry.pointers)
    unlucky = Registry(registry.store, away, registry.clock)
    with pytest.raises(UnreachableError):
        taken(unlucky, fresh_line, "first")
    away.num_failures = 3
    writer = acquire_writer(unlucky, fresh_line, "first", None, threading.Event(), ttl_seconds=1, heartbeat=False)
    assert writer is not None
    assert caplog.text.count("not writing") == 1
    assert "is away" in caplog.text
    # What cannot be renewed for a while is not lost: nobody else could take it meanwhile.
    away.num_failures = 1
    writer.beat()
    assert away.num_failures == 0
    writer.check()
    away.num_failures = 1
    writer.close()
    assert registry.pointers.writer(fresh_line) == "first"


class Away:
    """Pointers that do not answer so many times."""

    def __init__(self, pointers: Pointers) -> None:
        self._pointers = pointers
        self.num_failures = 1

    def __getattr__(self, name: str) -> object:
        if self.num_failures:
            self.num_failures -= 1
            raise UnreachableError("it is away")
        return getattr(self._pointers, name)
