"""One way to connect to Redis, and one way for it to fail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import redis

from lifelong.errors import ConfigError, UnreachableError

# At the beginning, or behind the command that redis-py puts first where the command was one of several.
_REFUSED = re.compile(r"(?:^|caused error: )(?:OOM|MISCONF|READONLY|NOREPLICAS|CLUSTERDOWN)\b")


def connect_redis(url: str) -> redis.Redis:
    """A client with a pool of connections, safe to share between threads. Connects when first used.

    Raises:
        ConfigError: this is no Redis URL.
    """
    try:
        return redis.Redis.from_url(url, socket_connect_timeout=2.0, socket_timeout=10.0, health_check_interval=30)
    except ValueError as error:
        raise ConfigError("redis.url", f"{shown(url)}: {error}") from error


@contextmanager
def redis_errors(url: str) -> Iterator[None]:
    """Turns what redis-py raises into our errors.

    Raises:
        UnreachableError: retriable; the server is down, loading, too slow, out of memory or unable to write.
        ConfigError: the server wants other credentials.
    """
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise ConfigError("redis.url", f"{shown(url)}: {error}; put user and password into the URL") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise UnreachableError(f"Redis at {shown(url)} does not answer: {error}") from error
    except (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError) as error:
        raise UnreachableError(f"Redis at {shown(url)} refuses to write: {error}") from error
    except redis.ResponseError as error:
        if _REFUSED.search(str(error)):
            raise UnreachableError(f"Redis at {shown(url)} refuses to write: {error}") from error
        raise


def shown(url: str) -> str:
    """The URL without its password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
