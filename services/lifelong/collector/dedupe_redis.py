"""What was seen before, in Redis, shared by all collectors of a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lifelong.collector.dedupe import Claim, Duplicate, num_needed
from lifelong.collector.knowledge import KnowledgeLostError, Proof
from lifelong.contracts import redis_keys
from lifelong.runtime.redis import connect_redis, redis_errors

# One claim, decided in one step. KEYS: event, then content if there is one, then signature and bands if there is one.
#
# Firsts are a list in the order in which they came, one entry per window: an answer that was found in it once is found
# again whatever was added since. A verdict on nearness depends on which other documents are there, so it is kept. Only
# documents that were new are in the bands: otherwise a page that changes a little every day would be dropped for ever.
# Signatures of candidates are read under keys that are found on the way; they share the hash tag of the others.
_FIRST_SEEN = """
local position, time, window, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local has_content, values, needed, prefix = ARGV[5] == '1', ARGV[6], tonumber(ARGV[7]), ARGV[8]

if ARGV[9] ~= '' and redis.call('GET', ARGV[9]) ~= ARGV[10] then return {'lost', ''} end

local function claim(key)
  local firsts = redis.call('LRANGE', key, 0, -1)
  for i = 1, #firsts, 2 do
    if firsts[i] == position then return nil end
  end
  for i = 1, #firsts, 2 do
    if math.abs(tonumber(firsts[i + 1]) - time) <= window then return firsts[i] end
  end
  redis.call('RPUSH', key, position, ARGV[2])
  redis.call('EXPIRE', key, ttl)
  return nil
end

local of = claim(KEYS[1])
if of then return {'event', of} end
if has_content then
  of = claim(KEYS[2])
  if of then return {'content', of} end
end
local own = has_content and 3 or 2
if not KEYS[own] then return {} end

local verdict = redis.call('HGET', KEYS[own], 'verdict')
if not verdict then
  verdict = ''
  local best, compared = needed - 1, {}
  for b = own + 1, #KEYS do
    local members = redis.call('ZRANGE', KEYS[b], 0, -1, 'WITHSCORES')
    for m = 1, #members, 2 do
      local other = members[m]
      if not compared[other] and math.abs(tonumber(members[m + 1]) - time) <= window then
        compared[other] = true
        local theirs = redis.call('HGET', prefix .. other, 'values')
        if theirs then
          local equal = 0
          for i = 1, #values, 4 do
            if string.sub(values, i, i + 3) == string.sub(theirs, i, i + 3) then equal = equal + 1 end
          end
          if equal > best then best, verdict = equal, other end
        end
      end
    end
  end
  redis.call('HSET', KEYS[own], 'verdict', verdict)
  if verdict == '' then
    redis.call('HSET', KEYS[own], 'values', values)
    for b = own + 1, #KEYS do
      redis.call('ZADD', KEYS[b], ARGV[2], position)
      redis.call('ZREMRANGEBYRANK', KEYS[b], 0, -65)
      redis.call('EXPIRE', KEYS[b], ttl)
    end
  end
  redis.call('EXPIRE', KEYS[own], ttl)
end
if verdict ~= '' then return {'near', verdict} end
return {}
"""


class RedisSeen:
    """Keys live for the window and a slack; replayed later than that, a duplicate may be taken for new."""

    def __init__(
        self,
        url: str,
        line: str,
        *,
        window_seconds: float,
        slack_seconds: float,
        near_threshold: float,
        proof: Proof | None = None,
    ) -> None:
        """``proof``: nothing is claimed or decided without it: of two that claim the same thing after all was lost, the
        later would else be taken for the first."""
        self._url = url
        self._proof = proof
        self._client = connect_redis(url)
        self._line = line
        self._window = window_seconds
        self._ttl = int(window_seconds + slack_seconds) + 1
        self._num_needed = num_needed(near_threshold)
        self._script = self._client.register_script(_FIRST_SEEN)

    def first_seen(self, claims: Sequence[Claim]) -> list[Duplicate | None]:
        """Raises KnowledgeLostError: ``proof`` does not hold."""
        if not claims:
            return []
        proof = self._proof() if self._proof is not None else ("", "")
        with redis_errors(self._url):
            pipeline = self._client.pipeline(transaction=False)
            for claim in claims:
                self._script(keys=self._keys(claim), args=[*self._args(claim), *proof], client=pipeline)
            # Loads the script first where it is missing.
            answers: list[list[bytes]] = pipeline.execute()
        if any(answer and answer[0] == b"lost" for answer in answers):
            raise KnowledgeLostError
        return [_duplicate(answer) for answer in answers]

    def _keys(self, claim: Claim) -> list[str]:
        keys = [redis_keys.seen(self._line, claim.event)]
        if claim.content is not None:
            keys.append(redis_keys.seen(self._line, claim.content))
        if claim.signature is not None:
            keys.append(redis_keys.signature(self._line, claim.position))
            keys += [redis_keys.seen(self._line, band) for band in claim.signature.bands]
        return keys

    def _args(self, claim: Claim) -> list[Any]:
        return [
            claim.position,
            repr(claim.time),
            repr(self._window),
            self._ttl,
            int(claim.content is not None),
            claim.signature.values if claim.signature else b"",
            self._num_needed,
            redis_keys.signature(self._line, ""),
        ]


def _duplicate(answer: list[bytes]) -> Duplicate | None:
    if not answer:
        return None
    kind, of = (part.decode() for part in answer)
    return msgspec.convert({"kind": kind, "of": of}, Duplicate)
