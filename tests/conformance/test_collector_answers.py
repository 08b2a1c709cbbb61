"""The collector finds what the servers have put into a real Valkey."""

from __future__ import annotations

import uuid

import pytest

from lifelong.collector.answers import RedisAnswers
from lifelong.contracts.requests import Output
from lifelong.errors import UnreachableError
from lifelong.inference.outputs import OutputStore


def test_answers_are_found_where_the_servers_put_them(redis_url: str) -> None:
    line = f"t-{uuid.uuid4().hex[:12]}"
    put = [Output(f"out-{n}", f"r{n}", "lifelong@1", "tiny", (), f"answer {n}", "stop", 0.0) for n in range(3)]
    OutputStore(redis_url, line, days=0.1).put(put)
    answers = RedisAnswers(redis_url, line)
    assert answers.answers(["out-2", "nobody's", "out-0"]) == ["answer 2", None, "answer 0"]
    assert answers.answers([]) == []
    assert RedisAnswers(redis_url, line + "-other").answers(["out-0"]) == [None]


def test_a_server_that_is_away_is_named() -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"):
        RedisAnswers("redis://127.0.0.1:1/0", "lifelong").answers(["out-0"])
