from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.model.detokenise import Detokeniser
from lifelong.model.tiny import byte_tokenizer

TOKENIZER = byte_tokenizer()


def _pieces(tokens: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], Detokeniser]:
    detokeniser = Detokeniser(TOKENIZER, stop)
    pieces = [detokeniser.push([token]) for token in tokens]
    return [*pieces, detokeniser.flush()], detokeniser


@given(st.text())
def test_pieces_are_whole_characters_and_make_up_the_text(text: str) -> None:
    pieces, _ = _pieces(TOKENIZER(text)["input_ids"])
    assert "".join(pieces) == text
    assert all("\N{REPLACEMENT CHARACTER}" not in piece or piece in text for piece in pieces)


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=40))
def test_whatever_the_model_says_the_pieces_make_up_what_decode_gives(tokens: list[int]) -> None:
    pieces, _ = _pieces(tokens)
    assert "".join(pieces) == TOKENIZER.decode(tokens, skip_special_tokens=True)


def test_a_character_of_several_tokens_comes_at_once() -> None:
    pieces, _ = _pieces(TOKENIZER("a🙂b")["input_ids"])
    assert pieces == ["a", "", "", "", "🙂", "b", ""]


@given(st.text("abc", max_size=20), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    pieces, detokeniser = _pieces(TOKENIZER(text)["input_ids"], tuple(stop))
    # Of stop strings that are complete with the same token, the one that begins first counts.
    ends = [(at + len(word), at) for word in stop for at in [text.find(word)] if at >= 0]
    first_end = min((end for end, _ in ends), default=0)
    expected = text[: min(at for end, at in ends if end == first_end)] if ends else text
    assert "".join(pieces) == expected
    assert detokeniser.stopped == bool(ends)


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_no_part_of_a_stop_string_gets_out(chunk: int) -> None:
    tokens = TOKENIZER("one ENDO two END three")["input_ids"]
    detokeniser = Detokeniser(TOKENIZER, ("END three", "ENDE"))
    pieces = [detokeniser.push(tokens[at : at + chunk]) for at in range(0, len(tokens), chunk)]
    assert "".join(pieces) == "one ENDO two "
    assert detokeniser.stopped
    assert detokeniser.push(tokens) == detokeniser.flush() == ""
