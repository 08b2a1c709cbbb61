from __future__ import annotations

import pytest

from lifelong.collector.features import language


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("The quick brown fox", "und-Latn"),
        ("Быстрая лиса", "und-Cyrl"),
        ("東京は日本の首都です", "ja"),
        ("北京是中国的首都", "und-Hani"),
        ("서울은 대한민국의 수도이다", "ko"),
        ("Η Αθήνα", "el"),
        ("กรุงเทพมหานคร", "th"),
        ("مرحبا بالعالم", "und-Arab"),
        ("Tokyo（東京）is a city in Japan", "und-Latn"),
        ("2 + 2 = 4", None),
        ("", None),
    ],
)
def test_language(text: str, tag: str | None) -> None:
    assert language(text) == tag
