from __future__ import annotations

import pytest

from lifelong.collector.words import words


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The cat's 2nd nap.", ["The", "cat", "s", "2nd", "nap"]),
        ("東京は首都", ["東", "京", "は", "首", "都"]),
        ("GPT東京v2", ["GPT", "東", "京", "v2"]),
        ("Привет, мир!", ["Привет", "мир"]),
        ("서울은 수도다", ["서울은", "수도다"]),
        ("…!?", []),
    ],
)
def test_words(text: str, tokens: list[str]) -> None:
    assert words(text) == tokens
