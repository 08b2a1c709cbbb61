"""Episodic memory in Redis ≥ 7 or Valkey, without modules.

An entry and everything that points to it are written, and removed, by one script each: no index ever names an entry
that is not there. Nothing has a TTL, for a hash that runs out would leave its index entries behind; ``sweep`` removes
what has expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lifelong.contracts import redis_keys
from lifelong.memory.base import Changes, MemoryChange, MemoryEntry
from lifelong.runtime.redis import connect_redis, redis_errors

# Entries of the log of changes. A server that is farther behind reads everything again.
LOG_ENTRIES = 100_000

# KEYS: entry, index, log, expiry, forgotten, of event, of user (or '')
# ARGV: entry id, event id, event time, expires or '', JSON, log length
_PUT = """
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('SISMEMBER', KEYS[5], ARGV[2]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'json', ARGV[5], 'event', ARGV[2], 'user', ARGV[7])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
if ARGV[4] ~= '' then redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1]) end
redis.call('SADD', KEYS[6], ARGV[1])
if ARGV[7] ~= '' then redis.call('SADD', KEYS[7], ARGV[1]) end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'id', ARGV[1])
return 1
"""

# As _PUT, without forgotten. ARGV: entry id, log length
_REMOVE = """
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('SREM', KEYS[5], ARGV[1])
redis.call('SREM', KEYS[6], ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], '*', 'id', ARGV[1])
return 1
"""

_PUT_VECTOR = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'embedder', ARGV[1], 'vector', ARGV[2]) end
"""


class RedisMemory:
    """A :class:`~lifelong.memory.base.MemoryStore`. Safe to share between threads.

    Every method raises UnreachableError, which is retriable, where Redis does not answer.
    """

    def __init__(self, url: str, line: str) -> None:
        self._url = url
        self._line = line
        self._redis: Any = connect_redis(url)
        self._put = self._redis.register_script(_PUT)
        self._remove = self._redis.register_script(_REMOVE)
        self._put_vector = self._redis.register_script(_PUT_VECTOR)

    def put(self, entries: Sequence[MemoryEntry]) -> None:
        if not entries:
            return
        with redis_errors(self._url):
            pipeline = self._redis.pipeline(transaction=False)
            for entry in entries:
                user = entry.user or ""
                keys = [
                    *self._keys(entry.id)[:4],
                    redis_keys.memory_forgotten(self._line),
                    redis_keys.memory_of_event(self._line, entry.event_id),
                    redis_keys.memory_of_user(self._line, user),
                ]
                expires = "" if entry.expires is None else repr(entry.expires)
                json = msgspec.json.encode(entry)
                args: list[str | bytes | int] = [
                    entry.id,
                    entry.event_id,
                    repr(entry.event_time),
                    expires,
                    json,
                    LOG_ENTRIES,
                    user,
                ]
                self._put(keys=keys, args=args, client=pipeline)
            pipeline.execute()

    def forget(self, *, event_ids: Sequence[str] = (), user: str | None = None) -> int:
        with redis_errors(self._url):
            ids: set[bytes] = set()
            if event_ids:
                # First of all, so that no entry of theirs is put any more.
                self._redis.sadd(redis_keys.memory_forgotten(self._line), *event_ids)
                for event_id in event_ids:
                    ids |= self._redis.smembers(redis_keys.memory_of_event(self._line, event_id))
            if user is not None:
                ids |= self._redis.smembers(redis_keys.memory_of_user(self._line, user))
            return self._remove_all(sorted(entry_id.decode() for entry_id in ids))

    def changes(self, cursor: str | None, limit: int = 1000) -> Changes:
        log = redis_keys.memory_log(self._line)
        with redis_errors(self._url):
            if cursor is None or self._log_was_cut_after(cursor):
                newest = self._redis.xrevrange(log, count=1)
                now = newest[0][0].decode() if newest else "0-0"
                ids = self._redis.zrange(redis_keys.memory_index(self._line), 0, -1)
                return Changes(now, True, self._changes([entry_id.decode() for entry_id in ids]))
            logged = self._redis.xrange(log, min=f"({cursor}", count=limit)
            cursor = logged[-1][0].decode() if logged else cursor
            # An entry that changed more than once is given once, as it is now.
            ids = dict.fromkeys(fields[b"id"].decode() for _, fields in logged)
            return Changes(cursor, False, self._changes(list(ids)))

    def put_vectors(self, embedder: str, vectors: dict[str, bytes]) -> None:
        with redis_errors(self._url):
            pipeline = self._redis.pipeline(transaction=False)
            for entry_id, vector in vectors.items():
                key = redis_keys.memory_entry(self._line, entry_id)
                self._put_vector(keys=[key], args=[embedder, vector], client=pipeline)
            pipeline.execute()

    def get(self, entry_id: str) -> MemoryEntry | None:
        with redis_errors(self._url):
            json = self._redis.hget(redis_keys.memory_entry(self._line, entry_id), "json")
        return None if json is None else msgspec.json.decode(json, type=MemoryEntry)

    def sweep(self, now: float) -> int:
        with redis_errors(self._url):
            expired = self._redis.zrangebyscore(redis_keys.memory_expiry(self._line), "-inf", f"({now!r}")
            return self._remove_all([entry_id.decode() for entry_id in expired])

    def __len__(self) -> int:
        with redis_errors(self._url):
            return int(self._redis.zcard(redis_keys.memory_index(self._line)))

    def close(self) -> None:
        self._redis.close()

    def _keys(self, entry_id: str) -> list[str]:
        return [
            redis_keys.memory_entry(self._line, entry_id),
            redis_keys.memory_index(self._line),
            redis_keys.memory_log(self._line),
            redis_keys.memory_expiry(self._line),
        ]

    def _remove_all(self, ids: Sequence[str]) -> int:
        removed = 0
        for entry_id in ids:
            key = redis_keys.memory_entry(self._line, entry_id)
            event, user = self._redis.hmget(key, "event", "user")
            if event is None:
                continue
            keys = [
                *self._keys(entry_id),
                redis_keys.memory_of_event(self._line, event.decode()),
                redis_keys.memory_of_user(self._line, user.decode()),
            ]
            removed += self._remove(keys=keys, args=[entry_id, LOG_ENTRIES])
        return removed

    def _log_was_cut_after(self, cursor: str) -> bool:
        """Whether changes after ``cursor`` may have been cut off the log, or the whole store was lost."""
        log = redis_keys.memory_log(self._line)
        if not self._redis.exists(log):
            return cursor != "0-0"
        info = self._redis.xinfo_stream(log)
        last, first = _order(info["last-generated-id"]), info["first-entry"]
        if _order(cursor.encode()) > last:
            return True
        was_cut = info["entries-added"] > info["length"]
        return bool(was_cut and first is not None and _order(first[0]) > _order(cursor.encode()))

    def _changes(self, ids: Sequence[str]) -> list[MemoryChange]:
        pipeline = self._redis.pipeline(transaction=False)
        for entry_id in ids:
            pipeline.hmget(redis_keys.memory_entry(self._line, entry_id), "json", "embedder", "vector")
        changes = []
        for entry_id, (json, embedder, vector) in zip(ids, pipeline.execute(), strict=True):
            entry = None if json is None else msgspec.json.decode(json, type=MemoryEntry)
            changes.append(MemoryChange(entry_id, entry, embedder and embedder.decode(), vector))
        return changes


def _order(stream_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition(b"-")
    return int(milliseconds), int(number or 0)
