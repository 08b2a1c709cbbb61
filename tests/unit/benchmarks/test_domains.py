"""S2, on made-up documents; and once on the real ones."""

from __future__ import annotations

import gzip
import re

import pytest
from benchmarks.learning import domains as s2
from benchmarks.learning.domains import MAX_BYTES, MIN_BYTES, Domain, domain, num_bytes, passages, pieces
from benchmarks.learning.draws import held_out

from lifelong.collector.config import CollectorSettings
from lifelong.collector.samples import make
from lifelong.contracts import events

NAMES = ["man-en", "friends", "quran-en", "man-de", "python-news"]


def document(name: str, num_words: int = 400) -> str:
    return " ".join(f"{name}{chr(97 + number % 26)}{chr(97 + number // 26)}" for number in range(num_words))


def documents(name: str, num: int = 60) -> dict[str, str]:
    letters = "abcdefghij"
    return {f"{name} {n}": document(f"{name}{letters[n // 10]}{letters[n % 10]}") for n in range(num)}


@pytest.fixture
def six(monkeypatch: pytest.MonkeyPatch) -> list[Domain]:
    monkeypatch.setattr(s2, "sources", lambda: {name: documents(name) for name in NAMES})
    return s2.domains(num_train=30, num_test=10, seed=3)


def test_passages_are_consecutive_words_of_bounded_length() -> None:
    text = document("größe")
    made = list(pieces(text))
    assert text.startswith(" ".join(made))
    assert all(MIN_BYTES <= len(piece.encode()) <= MAX_BYTES for piece in made)
    assert len(" ".join(made).encode()) >= len(text.encode()) - MIN_BYTES


def test_line_breaks_stay_inside_a_passage() -> None:
    line = "word " * 12
    (piece,) = pieces(f"{line.strip()}\n\n{line.strip()}\n{line}\n\n")
    assert piece == f"{line.strip()}\n\n{line.strip()}\n{line.strip()}"


def test_a_word_longer_than_a_passage_is_left_out() -> None:
    before, after = "word " * 40, "other " * 40
    assert list(pieces(f"{before}{'-' * 1000} {after}")) == [before.strip(), after.strip()]
    assert list(pieces("x" * 1000)) == []


def test_what_is_said_in_the_same_words_twice_is_left_out() -> None:
    licence = "Permission is granted to everybody. " * 7
    assert {passage.document for passage in passages({"a": licence, "b": licence.upper(), "c": document("c")})} == {"c"}


def test_no_document_is_in_train_and_test_under_any_seed() -> None:
    made = passages(documents("x"))
    by_offset = {f"10-{offset}-0": passage.document for offset, passage in enumerate(made)}
    learnt, asked = set(), set()
    for seed in range(5):
        drawn = domain("x", 10, documents("x"), 50, 20, seed)
        learnt |= {by_offset[sample.id] for sample in drawn.train}
        asked |= {by_offset[sample.id] for sample in drawn.test}
    assert len(learnt) > 10
    assert len(asked) > 5
    assert all(held_out(name) for name in asked)
    assert not any(held_out(name) for name in learnt)


def test_the_first_domain_comes_back_with_samples_that_were_not_seen(six: list[Domain]) -> None:
    assert [each.name for each in six] == [*NAMES, "man-en"]
    assert all((len(each.train), len(each.test)) == (30, 10) for each in six)
    assert six[-1].test == six[0].test
    ids = [sample.id for each in six for sample in each.train]
    assert len(set(ids)) == len(ids)
    assert {sample.task for sample in six[-1].train} == {"man-en"}
    times = [sample.event_time for each in six for sample in each.train]
    assert times == [float(place) for place in range(180)]


def test_the_same_seed_draws_the_same(six: list[Domain]) -> None:
    assert s2.domains(30, 10, seed=3) == six
    assert [each.train for each in s2.domains(30, 10, seed=4)] != [each.train for each in six]
    with pytest.raises(ValueError, match="ask for fewer"):
        s2.domains(10**6, 10, seed=3)


def test_a_sample_is_what_the_collector_makes_of_such_a_document() -> None:
    drawn = domain("x", 10, documents("größe"), 1, 1, seed=0).train[0]
    assert drawn.text is not None
    assert num_bytes(drawn) == len(drawn.text.encode()) > len(drawn.text)
    event = events.Event(
        id=drawn.event_id, source="/", type="", time=0.0, data=events.Document(text=drawn.text, task="x")
    )
    assert make(event, drawn.id.removesuffix("-0"), CollectorSettings()).samples == (drawn,)


def test_pages_are_named_alike_in_both_languages() -> None:
    page = gzip.compress(b".TH x 1\n.SH NAME\nx \\- does it\n")
    for path in ("usr/share/man/man7/signal.7.gz", "usr/share/man/de/man7/signal.7.gz"):
        assert s2._manual({path: page, "usr/share/doc/copyright": b""}) == {"man7/signal.7": "x - does it"}


def test_news_are_cut_at_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Title\n=====\n\nIntro.\n\n\n\nOne::\n\n   a == b\n\nSecond\n------\n\nMore.\n"
    monkeypatch.setattr(s2, "debian", lambda *_: {"whatsnew/2.0.rst.txt": text.encode()})
    assert s2._whats_new() == {
        "2.0.rst.txt 000": "",
        "2.0.rst.txt 001": "Title\n=====\n\nIntro.\n\nOne::\n\n   a == b\n\n",
        "2.0.rst.txt 002": "Second\n------\n\nMore.\n",
    }


def test_an_episode_is_a_script_with_its_quotation_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"Season & Episode": "0101", "Author": "Joey", "Quote": " Why can\x92t I\x85"}
    monkeypatch.setattr(s2, "orange", lambda _: [row, row | {"Author": "Monica", "Quote": "Oh."}])
    assert s2._friends() == {"0101": "Joey: Why can’t I…\nMonica: Oh."}


@pytest.mark.downloads
def test_the_real_domains() -> None:
    made = s2.domains(num_train=600, num_test=100, seed=0)
    assert [each.name for each in made] == [*NAMES, "man-en"]
    for each in made:
        assert (len(each.train), len(each.test)) == (600, 100)
        assert all(num_bytes(sample) >= MIN_BYTES for sample in each.train)
        text = " ".join(str(sample.text) for sample in each.train)
        # Nothing is left of the markup of manual pages.
        assert not each.name.startswith("man") or not re.search(r"\\f[BIPR]", text)
        assert not any("\x80" <= letter <= "\x9f" for letter in text)
    num_passages = {name: len(passages(documents)) for name, documents in s2.sources().items()}
    assert num_passages == {"man-en": 5285, "friends": 11873, "quran-en": 2684, "man-de": 19638, "python-news": 2080}
