from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.collector.clean import clean, num_letters, tidy
from lifelong.errors import DecodeError

texts = st.text(st.characters(codec="utf-8"), max_size=200)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("cafe\u0301", "café"),
        ("e\ufeff\u0301t\u00e9 in the sun at noon", "été in the sun at noon"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("a bell \x07 in a text that is otherwise sane", "a bell  in a text that is otherwise sane"),
        ("  ends   \n\n  of lines\t \n", "ends\n\n  of lines"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("日本語。", "日本語。"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize("text", ["\ufffd\ufffd\ufffd caf\ufffd", "PK\x03\x04\x14\x00\x00\x00", "\ue000\ue001 abc"])
def test_what_is_no_text_is_refused(text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        clean(text)
    assert caught.value.reason == "garbled"


@given(texts)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    try:
        once = clean(text)
    except DecodeError:
        return
    assert clean(once) == once
    assert tidy(tidy(once)) == tidy(once)


@given(texts)
def test_letters_are_never_lost(text: str) -> None:
    try:
        assert num_letters(tidy(clean(text))) <= num_letters(text) + text.count("\u0344") + len(text)
        assert "".join(clean(text).split()) != "" or not any(map(str.isalnum, text))
    except DecodeError:
        return


def test_tidy_leaves_code_alone() -> None:
    code = "```python\nif  x:\n\n\n\n    y  =  1\n```"
    assert tidy(f"Two   words.\n\n\n\n{code}\nand    more") == f"Two words.\n\n{code}\nand more"
    assert tidy("prose  here\n    indented  code\n\ttoo  here") == "prose here\n    indented  code\n\ttoo  here"


def test_a_megabyte_of_blanks_takes_no_quadratic_time() -> None:
    blanks = " " * 1_000_000
    assert tidy(clean(f"a{blanks}b{blanks}")) == "a b"
