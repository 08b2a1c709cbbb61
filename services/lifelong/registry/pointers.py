"""Pointers in Redis. Each operation that reads and then writes is one script, so that two writers cannot interleave."""

from __future__ import annotations

from typing import Any

from lifelong.contracts import redis_keys
from lifelong.errors import FencedError, RegistryError
from lifelong.registry.base import PointerState
from lifelong.registry.local import LocalPointers
from lifelong.runtime.redis import connect_redis, redis_errors

__all__ = ["LocalPointers", "RedisPointers"]

# KEYS[1] is the hash of pointers, KEYS[2] the lease. The hash has `live` once the line is known; `epoch` and `writer`,
# the newest that took the lease, may be there before; it is empty once that one has given the lease back.

_ACQUIRE = """
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return nil end
local epoch = math.max(tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0'), tonumber(ARGV[3])) + 1
redis.call('HSET', KEYS[1], 'epoch', epoch, 'writer', ARGV[1])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return epoch
"""

_RENEW = """
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return 0 end
if redis.call('HGET', KEYS[1], 'writer') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
"""

_RECLAIM = """
if redis.call('EXISTS', KEYS[2]) == 1 or redis.call('HEXISTS', KEYS[1], 'writer') == 1 then return 0 end
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0') > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'writer', ARGV[1])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
"""

_RELEASE = """
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
if redis.call('HGET', KEYS[1], 'writer') == ARGV[1] then redis.call('HSET', KEYS[1], 'writer', '') end
"""

_STATE = """
local function state()
  return redis.call('HMGET', KEYS[1], 'live', 'candidate', 'epoch', 'held', 'moved', 'restored')
end
local function set_live(number, now)
  if redis.call('HGET', KEYS[1], 'live') ~= number then
    redis.call('HSET', KEYS[1], 'live', number, 'moved', now)
  end
end
"""

_MOVE = (
    _STATE
    + """
if redis.call('HEXISTS', KEYS[1], 'live') == 0 then return 'unknown' end
local epoch = redis.call('HGET', KEYS[1], 'epoch') or '0'
if tonumber(ARGV[1]) < tonumber(epoch) then return epoch end
local writer = redis.call('HGET', KEYS[1], 'writer')
if ARGV[5] ~= '' and writer and writer ~= ARGV[5] then return 'other' end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'candidate', ARGV[2])
if ARGV[3] ~= '' and redis.call('HGET', KEYS[1], 'held') ~= '1' then set_live(ARGV[3], ARGV[4]) end
return state()
"""
)

_SET_LIVE = (
    _STATE
    + """
if redis.call('HEXISTS', KEYS[1], 'live') == 0 then return 'unknown' end
set_live(ARGV[1], ARGV[3])
redis.call('HSET', KEYS[1], 'held', ARGV[2])
return state()
"""
)

_RESTORE = (
    _STATE
    + """
if redis.call('HEXISTS', KEYS[1], 'live') == 0 then
  local epoch = math.max(tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0'), tonumber(ARGV[3]))
  redis.call('HSET', KEYS[1], 'live', ARGV[1], 'candidate', ARGV[2], 'epoch', epoch, 'held', ARGV[4], 'moved', ARGV[5],
    'restored', ARGV[6])
end
return state()
"""
)


class RedisPointers:
    """``Pointers`` on Redis ≥ 7 or Valkey. Safe to share between threads. Leases run out by the server's clock."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._redis = connect_redis(redis_url)
        self._acquire = self._redis.register_script(_ACQUIRE)
        self._renew = self._redis.register_script(_RENEW)
        self._reclaim = self._redis.register_script(_RECLAIM)
        self._release = self._redis.register_script(_RELEASE)
        self._move = self._redis.register_script(_MOVE)
        self._set_live = self._redis.register_script(_SET_LIVE)
        self._restore = self._redis.register_script(_RESTORE)

    def read(self, line: str) -> PointerState | None:
        names = ["live", "candidate", "epoch", "held", "moved", "restored"]
        with redis_errors(self._url):
            values: Any = self._redis.hmget(redis_keys.pointers(line), names)
        return _state(values) if values[0] is not None else None

    def acquire(self, line: str, writer: str, ttl_seconds: float, at_least_epoch: int) -> int | None:
        with redis_errors(self._url):
            epoch: int | None = self._acquire(_keys(line), [writer, _milliseconds(ttl_seconds), at_least_epoch])
        return epoch

    def renew(self, line: str, writer: str, ttl_seconds: float) -> bool:
        with redis_errors(self._url):
            return bool(self._renew(_keys(line), [writer, _milliseconds(ttl_seconds)]))

    def reclaim(self, line: str, writer: str, ttl_seconds: float, epoch: int) -> bool:
        with redis_errors(self._url):
            return bool(self._reclaim(_keys(line), [writer, _milliseconds(ttl_seconds), epoch]))

    def release(self, line: str, writer: str) -> None:
        with redis_errors(self._url):
            self._release(_keys(line), [writer])

    def writer(self, line: str) -> str | None:
        with redis_errors(self._url):
            holder: Any = self._redis.get(redis_keys.lease(line))
        return None if holder is None else str(holder, "utf-8")

    def move(
        self, line: str, *, epoch: int, candidate: int, live: int | None, now: float, writer: str | None = None
    ) -> PointerState:
        values = [epoch, candidate, "" if live is None else live, repr(now), writer or ""]
        with redis_errors(self._url):
            reply = self._move(_keys(line), values)
        if reply == b"other":
            raise FencedError(f"line {line!r}: another writer has taken over, also with epoch {epoch}")
        if isinstance(reply, bytes) and reply != b"unknown":
            raise FencedError(f"line {line!r}: epoch {epoch} is over, {reply.decode()} has begun")
        return _known(line, reply)

    def set_live(self, line: str, number: int, *, held: bool, now: float) -> PointerState:
        with redis_errors(self._url):
            return _known(line, self._set_live(_keys(line), [number, int(held), repr(now)]))

    def restore(self, line: str, state: PointerState) -> PointerState:
        numbers = [state.live, state.candidate, state.epoch, int(state.held)]
        values: list[int | str] = [*numbers, repr(state.moved), state.restored]
        with redis_errors(self._url):
            return _known(line, self._restore(_keys(line), values))

    def close(self) -> None:
        self._redis.close()


def _keys(line: str) -> list[str]:
    return [redis_keys.pointers(line), redis_keys.lease(line)]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _known(line: str, reply: Any) -> PointerState:
    if reply == b"unknown":
        raise RegistryError(f"nothing is known of line {line!r}")
    return _state(reply)


def _state(values: list[bytes | None]) -> PointerState:
    live, candidate, epoch, held, moved = (value or b"0" for value in values[:5])
    return PointerState(int(live), int(candidate), int(epoch), held == b"1", float(moved), (values[5] or b"").decode())
