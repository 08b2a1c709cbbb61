from __future__ import annotations

import random

import pytest

from lifelong.collector.repetition import repetition

_RANDOM = random.Random(1)
PROSE = " ".join(f"word{_RANDOM.randrange(400)}" for _ in range(300))


def test_prose_passes() -> None:
    assert repetition(PROSE) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\n".join(f"step {i // 2} of its own\nthe same line again" for i in range(40)), "lines"),
        (f"{PROSE[:400]}\n\n{PROSE[:400]}", "lines"),
        ("ha " * 100, "2 words"),
        (" ".join(f"n{i} buy now today cheap" for i in range(60)), "words"),
        (PROSE[:600] + " " + PROSE[:600], "5 words"),
    ],
)
def test_repetition_is_named(text: str, problem: str) -> None:
    found = repetition(text)
    assert found is not None
    assert problem in found


def test_short_texts_are_never_repetitive() -> None:
    assert repetition("no no no no no no") is None


def test_the_factor_moves_the_limits() -> None:
    text = PROSE + " " + PROSE[:300]
    assert repetition(text) is not None
    assert repetition(text, 3.0) is None
    assert repetition("ha " * 100, 0) is None


def test_code_with_many_closing_braces_passes() -> None:
    code = "\n".join(f"void function_{i}(int argument_{i * 7}) {{\n    call_{i * 3}({i});\n}}" for i in range(40))
    assert repetition(code) is None


def test_a_repeated_sequence_counts_once_per_character() -> None:
    # Half of it is the copy; no share may exceed 1.
    found = repetition(" ".join([PROSE] * 2))
    assert found == "50% of the text is in repeated sequences of 5 words"
