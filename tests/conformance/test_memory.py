"""What every memory store must do."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis

from lifelong.contracts import redis_keys
from lifelong.errors import UnreachableError
from lifelong.local.ports import free_port
from lifelong.memory.base import MemoryChange, MemoryEntry, MemoryStore
from lifelong.memory.local import LocalMemory
from lifelong.memory.redis import RedisMemory
from lifelong.runtime.redis import redis_errors


@pytest.fixture(params=["local", "redis"])
def memory(request: pytest.FixtureRequest, fresh_line: str) -> Iterator[MemoryStore]:
    if request.param == "local":
        yield LocalMemory()
        return
    store = RedisMemory(request.getfixturevalue("redis_url"), fresh_line)
    yield store
    store.close()


def entry(
    entry_id: str, event_id: str = "", *, user: str | None = None, expires: float | None = None, time: float = 1.5
) -> MemoryEntry:
    return MemoryEntry(
        id=entry_id,
        event_id=event_id or f"event-{entry_id}",
        text=f"text of {entry_id}: naïve, 東京",
        kind="fact",
        event_time=time,
        question="q?",
        user=user,
        expires=expires,
    )


def ids(changes: list[MemoryChange]) -> list[str]:
    return sorted(change.entry_id for change in changes)


def everything(memory: MemoryStore) -> list[str]:
    found = memory.changes(None)
    assert found.is_everything
    assert all(change.entry is not None for change in found.changes)
    return ids(found.changes)


def test_empty(memory: MemoryStore) -> None:
    assert len(memory) == 0
    assert memory.get("0-1-0") is None
    assert everything(memory) == []
    assert memory.forget(event_ids=["never seen"], user="nobody") == 0
    assert memory.sweep(1e12) == 0
    memory.put([])
    memory.put_vectors("e", {})
    assert len(memory) == 0


def test_what_was_put_is_there_as_it_was(memory: MemoryStore) -> None:
    entries = [entry("0-1-0"), entry("0-2-0", user="ann", expires=99.25)]
    memory.put(entries)
    assert [memory.get(e.id) for e in entries] == entries
    assert len(memory) == 2
    assert everything(memory) == ["0-1-0", "0-2-0"]


def test_the_same_again_changes_nothing(memory: MemoryStore) -> None:
    memory.put([entry("0-1-0")])
    cursor = memory.changes(None).cursor
    memory.put([entry("0-1-0"), entry("0-1-0", time=9.0)])
    assert len(memory) == 1
    assert memory.get("0-1-0") == entry("0-1-0")
    assert memory.changes(cursor).changes == []


def test_a_follower_sees_every_change_once(memory: MemoryStore) -> None:
    memory.put([entry("0-1-0")])
    first = memory.changes(None)
    assert ids(first.changes) == ["0-1-0"]
    nothing = memory.changes(first.cursor)
    assert (nothing.is_everything, nothing.changes) == (False, [])
    memory.put([entry("0-2-0"), entry("0-3-0")])
    memory.forget(event_ids=["event-0-1-0"])
    found = memory.changes(nothing.cursor)
    assert not found.is_everything
    assert {change.entry_id: change.entry for change in found.changes} == {
        "0-1-0": None,
        "0-2-0": entry("0-2-0"),
        "0-3-0": entry("0-3-0"),
    }
    assert memory.changes(found.cursor).changes == []


def test_a_follower_from_the_very_beginning(memory: MemoryStore) -> None:
    cursor = memory.changes(None).cursor
    memory.put([entry("0-1-0")])
    found = memory.changes(cursor)
    assert ids(found.changes) == ["0-1-0"]
    assert memory.changes(found.cursor).changes == []


def test_changes_come_in_pages(memory: MemoryStore) -> None:
    cursor = memory.changes(None).cursor
    memory.put([entry(f"0-{number}-0") for number in range(25)])
    pages = []
    while True:
        found = memory.changes(cursor, limit=10)
        cursor = found.cursor
        if not found.changes:
            break
        pages.append(ids(found.changes))
    assert [len(page) for page in pages] == [10, 10, 5]
    assert sorted(entry_id for page in pages for entry_id in page) == sorted(f"0-{number}-0" for number in range(25))


def test_put_and_forgotten_before_anybody_looked(memory: MemoryStore) -> None:
    cursor = memory.changes(None).cursor
    memory.put([entry("0-1-0")])
    memory.forget(event_ids=["event-0-1-0"])
    assert memory.changes(cursor).changes == [MemoryChange("0-1-0", None)]


def test_forgetting_an_event_forgets_all_that_came_of_it(memory: MemoryStore) -> None:
    memory.put([entry("0-1-0", "a"), entry("0-1-1", "a", user="ann"), entry("0-2-0", "b")])
    assert memory.forget(event_ids=["a", "c"]) == 2
    assert everything(memory) == ["0-2-0"]
    assert memory.get("0-1-0") is None
    assert len(memory) == 1
    assert memory.forget(event_ids=["a"]) == 0


def test_forgetting_a_user_leaves_the_others(memory: MemoryStore) -> None:
    memory.put([entry("0-1-0", user="ann"), entry("0-2-0", user="anna"), entry("0-3-0"), entry("0-4-0", user="ann")])
    assert memory.forget(user="ann") == 2
    assert everything(memory) == ["0-2-0", "0-3-0"]


def test_a_replay_does_not_bring_back_what_was_forgotten(memory: MemoryStore) -> None:
    stream = [entry("0-1-0", "a"), entry("0-2-0", user="ann"), entry("0-3-0")]
    memory.put(stream)
    memory.forget(event_ids=["a", "not yet arrived"], user="ann")
    memory.put([*stream, entry("1-7-0", "not yet arrived")])
    assert everything(memory) == ["0-3-0"]
    # Forgotten is what was, not who: the user may come back.
    memory.put([entry("0-9-0", user="ann")])
    assert everything(memory) == ["0-3-0", "0-9-0"]
    assert memory.forget(user="ann") == 1


def test_what_expired_is_swept_away(memory: MemoryStore) -> None:
    memory.put([entry("0-1-0", expires=10.0), entry("0-2-0", expires=10.5, user="ann"), entry("0-3-0")])
    cursor = memory.changes(None).cursor
    assert memory.sweep(10.0) == 0
    assert memory.sweep(10.25) == 1
    assert memory.changes(cursor).changes == [MemoryChange("0-1-0", None)]
    assert everything(memory) == ["0-2-0", "0-3-0"]
    assert memory.sweep(1e12) == 1
    assert memory.forget(user="ann") == 0
    assert everything(memory) == ["0-3-0"]


def test_vectors_are_kept_for_the_next_server(memory: MemoryStore) -> None:
    memory.put([entry("0-1-0"), entry("0-2-0")])
    cursor = memory.changes(None).cursor
    memory.put_vectors("minilm", {"0-1-0": b"\x00\x01\xff", "gone": b"x"})
    found = {change.entry_id: (change.embedder, change.vector) for change in memory.changes(None).changes}
    assert found == {"0-1-0": ("minilm", b"\x00\x01\xff"), "0-2-0": (None, None)}
    assert memory.get("gone") is None
    assert len(memory) == 2
    # The servers that run have embedded it themselves.
    assert memory.changes(cursor).changes == []
    memory.put_vectors("other", {"0-1-0": b"\x02"})
    found = {change.entry_id: (change.embedder, change.vector) for change in memory.changes(None).changes}
    assert found["0-1-0"] == ("other", b"\x02")


def test_many_writers_at_once(memory: MemoryStore) -> None:
    """Collectors replay each other's work when partitions move."""
    entries = [entry(f"0-{number}-0", user=f"u{number % 3}") for number in range(200)]
    threads = [threading.Thread(target=memory.put, args=(entries,)) for _ in range(4)]
    cursor = memory.changes(None).cursor
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(memory) == 200
    assert len(memory.changes(cursor, limit=1000).changes) == 200
    assert memory.forget(user="u0") == 67


# Of Redis alone.


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_nothing_is_left_behind(redis_url: str, fresh_line: str, client: redis.Redis) -> None:
    memory = RedisMemory(redis_url, fresh_line)
    memory.put(
        [
            entry("0-1-0", "a", user="ann"),
            entry("0-2-0", "b", expires=5.0),
            entry("0-3-0", "c", user="bob", expires=5.0),
        ]
    )
    memory.put_vectors("minilm", {"0-1-0": b"v"})
    memory.forget(user="ann")
    memory.forget(event_ids=["b"])
    memory.sweep(6.0)
    left = {str(key, "utf-8") for key in client.scan_iter(f"*{{{fresh_line}}}*")}
    assert left == {redis_keys.memory_log(fresh_line), redis_keys.memory_forgotten(fresh_line)}
    # Neither of them says what was forgotten.
    assert client.smembers(redis_keys.memory_forgotten(fresh_line)) == {b"a", b"b"}
    for _, fields in client.xrange(redis_keys.memory_log(fresh_line)):
        assert set(fields) == {b"id"}
    memory.close()


def test_all_keys_of_a_line_are_on_one_node(redis_url: str, fresh_line: str, client: redis.Redis) -> None:
    memory = RedisMemory(redis_url, fresh_line)
    memory.put([entry("0-1-0", "a}{b", user="{ann}", expires=5.0)])
    memory.forget(event_ids=["x"])
    keys = list(client.scan_iter(f"*{{{fresh_line}}}*"))
    assert len(keys) == 7
    for key in keys:
        assert key[key.index(b"{") + 1 : key.index(b"}")].decode() == fresh_line
    assert memory.forget(user="{ann}") == 1
    memory.close()


def test_a_follower_that_is_too_far_behind_gets_everything(redis_url: str, fresh_line: str) -> None:
    memory = RedisMemory(redis_url, fresh_line, log_entries=10)
    start = memory.changes(None).cursor
    memory.put([entry("0-0-0", "early")])
    behind = memory.changes(start).cursor
    memory.forget(event_ids=["early"])
    memory.put([entry(f"0-{number}-0") for number in range(1, 501)])
    for cursor in (start, behind):
        found = memory.changes(cursor, limit=1000)
        assert found.is_everything
        assert len(found.changes) == 500
        # What was forgotten meanwhile is known by its absence.
        assert "0-0-0" not in ids(found.changes)
        assert memory.changes(found.cursor).changes == []
    memory.put([entry("0-501-0")])
    assert memory.changes(found.cursor).changes == [MemoryChange("0-501-0", entry("0-501-0"))]
    memory.close()


@pytest.mark.parametrize("refilled", [False, True])
def test_a_follower_notices_that_the_store_was_lost(
    redis_url: str, fresh_line: str, client: redis.Redis, refilled: bool
) -> None:
    memory = RedisMemory(redis_url, fresh_line)
    memory.put([entry("0-1-0"), entry("0-2-0")])
    cursor = memory.changes(None).cursor
    client.delete(*client.scan_iter(f"*{{{fresh_line}}}*"))
    if refilled:
        memory.put([entry("0-2-0")])
    found = memory.changes(cursor)
    assert found.is_everything
    assert ids(found.changes) == (["0-2-0"] if refilled else [])
    assert memory.changes(found.cursor).changes == []
    memory.close()


def test_scripts_that_the_server_lost_are_sent_again(redis_url: str, fresh_line: str, client: redis.Redis) -> None:
    memory = RedisMemory(redis_url, fresh_line)
    memory.put([entry("0-1-0")])
    client.script_flush()
    memory.put([entry("0-2-0")])
    client.script_flush()
    assert memory.forget(event_ids=["event-0-1-0"]) == 1
    assert everything(memory) == ["0-2-0"]
    memory.close()


def test_redis_that_is_down_is_one_retriable_error() -> None:
    memory = RedisMemory(f"redis://127.0.0.1:{free_port()}/0", "lifelong")
    for act in (lambda: memory.put([entry("0-1-0")]), lambda: memory.changes(None), lambda: memory.forget(user="ann")):
        with pytest.raises(UnreachableError) as caught:
            act()
        assert caught.value.retriable
    memory.close()


def test_redis_that_cannot_write_is_one_retriable_error() -> None:
    """Whether it says so at once or for one command of many."""
    for text in (
        "MISCONF Errors writing to the AOF file: No space left on device",
        "Command # 1 (EVALSHA …) of pipeline caused error: MISCONF Errors writing to the AOF file",
        "NOREPLICAS Not enough good replicas to write.",
    ):
        with pytest.raises(UnreachableError, match="refuses to write"), redis_errors("redis://h:1/0"):
            raise redis.ResponseError(text)
    with pytest.raises(redis.ResponseError), redis_errors("redis://h:1/0"):
        raise redis.ResponseError("WRONGTYPE Operation against a key")
