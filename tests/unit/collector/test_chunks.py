from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.collector.chunks import cut

texts = st.text(st.sampled_from(list("abcé。.! \n\t")) | st.characters(codec="utf-8"), max_size=400)


@given(texts, st.integers(1, 50))
def test_pieces_are_short_and_nothing_but_space_is_lost(text: str, max_chars: int) -> None:
    pieces = cut(text, max_chars)
    assert all(0 < len(piece) <= max_chars for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "max_chars", "pieces"),
    [
        ("short", 10, ["short"]),
        ("one two\n\nthree four\n\nfive", 20, ["one two\n\nthree four", "five"]),
        ("A first. A second one. End.", 15, ["A first.", "A second one.", "End."]),
        ("一つ目です。二つ目です。三つ目です。", 12, ["一つ目です。二つ目です。", "三つ目です。"]),
        ("This is 3.14 here. And so on", 20, ["This is 3.14 here.", "And so on"]),
        ("aaaa bbbb cccc", 9, ["aaaa bbbb", "cccc"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("", 3, []),
        ("tiny\n\n" + "x" * 25, 10, ["tiny", "x" * 10, "x" * 10, "x" * 5]),
    ],
)
def test_cut(text: str, max_chars: int, pieces: list[str]) -> None:
    assert cut(text, max_chars) == pieces


def test_an_accent_stays_with_its_letter() -> None:
    assert cut("abcde\u0323fg", 5) == ["abcd", "e\u0323fg"]


def test_a_long_text_without_a_place_to_cut() -> None:
    assert len(cut("x" * 1_000_000, 1000)) == 1000
