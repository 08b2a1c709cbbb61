"""Whether Redis still has what the collectors of a line told it, and who tells it again if not.

A token stands for all of it: memory, what was seen, halves that wait. It is written when all of that is complete, and
lost only with it. Whoever finds no token makes one, after everything was read again; one at a time does that.
"""

from __future__ import annotations

import secrets
from typing import Any, Protocol

from lifelong.contracts import redis_keys
from lifelong.runtime.redis import connect_redis, redis_errors


class KnowledgeLostError(Exception):
    """What was to be decided by what is known, which was lost meanwhile. Nothing was decided."""


class Knowledge(Protocol):
    """Every method raises UnreachableError, which is retriable, where the store does not answer."""

    def token(self) -> str | None:
        """``None``: what was told is lost, or nothing was ever told. Another than before: it was lost meanwhile."""
        ...

    def is_still(self, token: str) -> bool:
        """Whether nothing was lost since."""
        ...

    def begin(self, teller: str) -> bool:
        """Whether this collector is to tell everything again, for now. Said again, it keeps the right to."""
        ...

    def complete(self, teller: str) -> bool:
        """Make the token. False: another has begun since, or what was told is lost again."""
        ...


_COMPLETE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 1
"""

# KEYS[1]: who tells. The right runs out for whoever dies over it.
_BEGIN = """
local teller = redis.call('GET', KEYS[1])
if teller and teller ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


class Proof(Protocol):
    """A key and what must be in it, for scripts that decide only by what is complete."""

    def __call__(self) -> tuple[str, str]: ...


class RedisKnowledge:
    """For one thread."""

    def __init__(self, url: str, line: str, *, ttl_seconds: float = 60.0) -> None:
        self._url = url
        self._trusted = self._teller = ""
        self._client: Any = connect_redis(url)
        self._keys = [redis_keys.known(line), redis_keys.telling(line)]
        self._ttl_milliseconds = max(1, int(ttl_seconds * 1000))
        self._begin = self._client.register_script(_BEGIN)
        self._complete = self._client.register_script(_COMPLETE)

    def token(self) -> str | None:
        token = self._read()
        self._trusted = token or ""
        return token

    def is_still(self, token: str) -> bool:
        return self._read() == token

    def proof(self) -> tuple[str, str]:
        """That what the last token stood for is still there."""
        return self._keys[0], self._trusted

    def proof_of_telling(self) -> tuple[str, str]:
        """That we are the one who tells everything again."""
        return self._keys[1], self._teller

    def begin(self, teller: str) -> bool:
        self._teller = teller
        with redis_errors(self._url):
            return bool(self._begin(self._keys[1:], [teller, self._ttl_milliseconds]))

    def complete(self, teller: str) -> bool:
        with redis_errors(self._url):
            return bool(self._complete(self._keys, [teller, secrets.token_hex(8)]))

    def _read(self) -> str | None:
        with redis_errors(self._url):
            token: bytes | None = self._client.get(self._keys[0])
        return None if token is None else token.decode()
