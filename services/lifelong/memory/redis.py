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

LOG_ENTRIES = 100_000
"""Changes that the log reaches back. A server that is farther behind reads everything again."""
# One script, or one pipeline, must not keep others waiting for long.
_BATCH = 1000

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

# KEYS: index, log, expiry, forgotten
# ARGV: log length, what the keys of entries, of events and of users begin with, ...
# Which entries go is known only here, so their keys are made here: all are of the line's node (the hash tag).
_REMOVE = """
local function remove(id)
  local event, user = unpack(redis.call('HMGET', ARGV[2] .. id, 'event', 'user'))
  if not event then return 0 end
  redis.call('DEL', ARGV[2] .. id)
  redis.call('ZREM', KEYS[1], id)
  redis.call('ZREM', KEYS[3], id)
  redis.call('SREM', ARGV[3] .. event, id)
  if user ~= '' then redis.call('SREM', ARGV[4] .. user, id) end
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'id', id)
  return 1
end
local removed = 0
"""

# ARGV: ..., user or '', event ids
_FORGET = (
    _REMOVE
    + """
if ARGV[5] ~= '' then
  for _, id in ipairs(redis.call('SMEMBERS', ARGV[4] .. ARGV[5])) do
    -- A replay of what this user's entries came of must not bring them back.
    local event = redis.call('HGET', ARGV[2] .. id, 'event')
    if event then redis.call('SADD', KEYS[4], event) end
    removed = removed + remove(id)
  end
end
for i = 6, #ARGV do
  redis.call('SADD', KEYS[4], ARGV[i])
  for _, id in ipairs(redis.call('SMEMBERS', ARGV[3] .. ARGV[i])) do removed = removed + remove(id) end
end
return removed
"""
)

# ARGV: ..., time, at most so many
_SWEEP = (
    _REMOVE
    + """
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. ARGV[5], 'LIMIT', 0, ARGV[6])) do
  removed = removed + remove(id)
end
return removed
"""
)

_PUT_VECTOR = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'embedder', ARGV[1], 'vector', ARGV[2]) end
"""


class RedisMemory:
    """A :class:`~lifelong.memory.base.MemoryStore`. Safe to share between threads.

    Every method raises UnreachableError, which is retriable, where Redis does not answer.
    """

    def __init__(self, url: str, line: str, *, log_entries: int = LOG_ENTRIES) -> None:
        self._url = url
        self._line = line
        self._log_entries = log_entries
        self._redis: Any = connect_redis(url)
        self._put = self._redis.register_script(_PUT)
        self._forget = self._redis.register_script(_FORGET)
        self._sweep = self._redis.register_script(_SWEEP)
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
                    self._log_entries,
                    user,
                ]
                self._put(keys=keys, args=args, client=pipeline)
            pipeline.execute()

    def forget(self, *, event_ids: Sequence[str] = (), user: str | None = None) -> int:
        with redis_errors(self._url):
            return int(self._forget(*self._removing(user or "", *event_ids)))

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
        removed = 0
        with redis_errors(self._url):
            while num := int(self._sweep(*self._removing(repr(now), _BATCH))):
                removed += num
        return removed

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

    def _removing(self, *args: str | int) -> tuple[list[str], list[str | int]]:
        """KEYS and ARGV of a script that removes."""
        keys = [
            redis_keys.memory_index(self._line),
            redis_keys.memory_log(self._line),
            redis_keys.memory_expiry(self._line),
            redis_keys.memory_forgotten(self._line),
        ]
        beginnings = [
            redis_keys.memory_entry(self._line, ""),
            redis_keys.memory_of_event(self._line, ""),
            redis_keys.memory_of_user(self._line, ""),
        ]
        return keys, [self._log_entries, *beginnings, *args]

    def _log_was_cut_after(self, cursor: str) -> bool:
        """Whether changes after ``cursor`` may have been cut off the log, or the whole store was lost."""
        log = redis_keys.memory_log(self._line)
        if not self._redis.exists(log):
            return cursor != "0-0"
        info = self._redis.xinfo_stream(log)
        last, first = _order(info["last-generated-id"]), info["first-entry"]
        if _order(cursor.encode()) > last:
            return True
        if first is None or _order(first[0]) <= _order(cursor.encode()):
            return False
        # Before the first entry there was nothing, unless some were cut off; any other cursor is of an entry that the
        # log does not have, or of a log that was lost.
        return cursor != "0-0" or bool(info["entries-added"] > info["length"])

    def _changes(self, ids: Sequence[str]) -> list[MemoryChange]:
        changes = []
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            pipeline = self._redis.pipeline(transaction=False)
            for entry_id in batch:
                pipeline.hmget(redis_keys.memory_entry(self._line, entry_id), "json", "embedder", "vector")
            for entry_id, (json, embedder, vector) in zip(batch, pipeline.execute(), strict=True):
                entry = None if json is None else msgspec.json.decode(json, type=MemoryEntry)
                changes.append(MemoryChange(entry_id, entry, embedder and embedder.decode(), vector))
        return changes


def _order(stream_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition(b"-")
    return int(milliseconds), int(number or 0)
