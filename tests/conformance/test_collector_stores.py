"""What was seen before, and observations that wait for their label: in memory and on a real Valkey."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable

import pytest

from lifelong.collector.dedupe import Claim, LocalSeen, SeenStore, signature
from lifelong.collector.dedupe_redis import RedisSeen
from lifelong.collector.joins import MAX_HALVES, Half, HalfStore, LocalHalves, RedisHalves
from lifelong.contracts import redis_keys
from lifelong.errors import UnreachableError
from lifelong.runtime.redis import connect_redis

WINDOW = 100.0


def redis_seen(url: str, line: str) -> RedisSeen:
    return RedisSeen(url, line, window_seconds=WINDOW, slack_seconds=50.0, near_threshold=0.8)


@pytest.fixture
def two_of_each(redis_url: str) -> Callable[[], tuple[tuple[SeenStore, HalfStore], tuple[SeenStore, HalfStore]]]:
    def make() -> tuple[tuple[SeenStore, HalfStore], tuple[SeenStore, HalfStore]]:
        line = f"t-{uuid.uuid4().hex[:12]}"
        real = redis_seen(redis_url, line), RedisHalves(redis_url, line, window_seconds=WINDOW)
        return (LocalSeen(WINDOW, 0.8), LocalHalves()), real

    return make


def random_claim(choose: random.Random, offset: int) -> Claim:
    base, changed = choose.randrange(3), choose.randrange(0, 60, 10)
    values = [base * 1000 + i + (10**6 if i < changed else 0) for i in range(128)]
    made = signature(b"".join(value.to_bytes(4, "little") for value in values), "")
    return Claim(
        f"{choose.randrange(2)}-{offset}",
        choose.uniform(1.7e9, 1.7e9 + 3 * WINDOW),
        f"e{choose.randrange(40)}",
        *((f"c-{base}-{changed}", made) if choose.random() < 0.7 else ()),
    )


@pytest.mark.parametrize("seed", range(10))
def test_valkey_decides_as_memory_does(
    two_of_each: Callable[[], tuple[tuple[SeenStore, HalfStore], tuple[SeenStore, HalfStore]]], seed: int
) -> None:
    """The same claims, some of them again, get the same answers, in batches of any size."""
    choose = random.Random(seed)
    (local, _), (real, _) = two_of_each()
    claims = [random_claim(choose, offset) for offset in range(60)]
    kinds = set()
    for _ in range(12):
        start = choose.randrange(len(claims))
        batch = claims[start : start + choose.randrange(1, 40)]
        verdicts = local.first_seen(batch)
        assert real.first_seen(batch) == verdicts
        kinds |= {verdict.kind if verdict else None for verdict in verdicts}
    assert kinds == {None, "event", "content", "near"}


@pytest.mark.parametrize("seed", range(10))
def test_valkey_joins_as_memory_does(
    two_of_each: Callable[[], tuple[tuple[SeenStore, HalfStore], tuple[SeenStore, HalfStore]]], seed: int
) -> None:
    choose = random.Random(seed)
    (_, local), (_, real) = two_of_each()
    halves = [
        Half(
            task=choose.choice(["a", "b:c"]),
            observation_id=choose.choice(["x", "x:y"]),
            partition=choose.randrange(2),
            offset=offset,
            side=choose.choice(["input", "label"]),
            text=f"text {offset} ✓",
            event_id=f"e{offset}",
        )
        for offset in range(60)
    ]
    for _ in range(8):
        start = choose.randrange(len(halves))
        assert real.meet(halves[start:]) == local.meet(halves[start:])


def test_what_is_kept_of_one_id_is_bounded_on_valkey(redis_url: str, fresh_line: str) -> None:
    store = RedisHalves(redis_url, fresh_line, window_seconds=WINDOW)
    store.meet([Half("t", "o", 0, offset, "label", "l", "e") for offset in range(MAX_HALVES + 10)])
    client = connect_redis(redis_url)
    (key,) = client.keys(f"lifelong:collector:{{{fresh_line}}}:label:*")
    assert client.hlen(key) == MAX_HALVES


def test_all_that_is_kept_runs_out(redis_url: str, fresh_line: str) -> None:
    """The keys of one claim: none lives for ever, and all are on one node of a cluster."""
    claim = Claim("0-0", 1.7e9, "event", "content", signature(bytes(range(128)) * 4, ""))
    assert redis_seen(redis_url, fresh_line).first_seen([claim]) == [None]
    RedisHalves(redis_url, fresh_line, window_seconds=WINDOW).meet([Half("t", "o", 0, 0, "input", "i", "e")])
    client = connect_redis(redis_url)
    keys = client.keys(f"lifelong:collector:{{{fresh_line}}}:*")
    assert len(keys) == 1 + 1 + 1 + 16 + 1
    for key in keys:
        assert 0 < client.ttl(key) <= WINDOW + 51
    assert redis_keys.seen(fresh_line, "e").startswith(f"lifelong:collector:{{{fresh_line}}}:")


def test_scripts_are_loaded_again_after_a_restart_of_the_server(redis_url: str, fresh_line: str) -> None:
    seen = redis_seen(redis_url, fresh_line)
    claim = Claim("0-0", 0.0, "e")
    assert seen.first_seen([claim]) == [None]
    connect_redis(redis_url).script_flush()
    assert seen.first_seen([claim]) == [None]


def test_a_server_that_is_away_is_our_error() -> None:
    with pytest.raises(UnreachableError):
        redis_seen("redis://127.0.0.1:1/0", "t").first_seen([Claim("0-0", 0.0, "e")])
    with pytest.raises(UnreachableError):
        RedisHalves("redis://127.0.0.1:1/0", "t", window_seconds=1).meet([Half("t", "o", 0, 0, "input", "i", "e")])
