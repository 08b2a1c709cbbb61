"""S1, on made-up texts; and once on the real ones."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from benchmarks.learning import tasks as s1
from benchmarks.learning.draws import evenly, held_out
from benchmarks.learning.tasks import LABELS, Row, Task, blurry, cut, distinct, key, mislabelled, recurring, task

from lifelong.contracts.samples import Sample
from lifelong.model.packaged import packaged_model
from lifelong.model.tokenise import IGNORE, encode_chat

NUMERALS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def words(number: int) -> str:
    """Another text for every number."""
    return " ".join(NUMERALS[int(digit)] for digit in str(number))


def made_up(name: str, num_rows: int = 600) -> list[Row]:
    labels = list(LABELS[name])
    return [Row(number, f"{name} {words(number)}", labels[number % len(labels)]) for number in range(num_rows)]


@pytest.fixture
def five(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    monkeypatch.setattr(s1, "sources", lambda: {name: made_up(name) for name in LABELS})
    return s1.tasks(num_train=40, num_test=20, seed=7)


def text(sample: Sample) -> str:
    return sample.messages[0].content


def test_a_wrong_label_is_another_of_its_task_and_the_id_tells(five: list[Task]) -> None:
    for each in five:
        wrong = mislabelled(each, each.train, 0)
        for before, after in zip(each.train, wrong, strict=True):
            assert after.id == f"poison-{before.id}"
            assert after.messages[0] == before.messages[0]
            assert after.messages[1].content in {*each.labels} - {before.messages[1].content}
        assert {sample.messages[1].content for sample in wrong} == {*each.labels}


def test_texts_that_differ_in_digits_signs_and_case_alone_are_one() -> None:
    rows = [Row(0, "Call 0123 NOW!", "1"), Row(1, "call  9999 now", "1"), Row(2, "call me now", "0")]
    assert distinct(rows) == [rows[0], rows[2]]


def test_a_text_with_two_labels_is_left_out() -> None:
    rows = [Row(0, "same", "1"), Row(1, "other", "1"), Row(2, "Same.", "0"), Row(3, "same", "1")]
    assert distinct(rows) == [rows[1]]


def test_a_text_without_a_letter_is_left_out() -> None:
    assert distinct([Row(0, " ... ", "1"), Row(1, "https://t.co/abc", "1"), Row(2, "word", "1")]) == [
        Row(2, "word", "1")
    ]


def test_long_texts_are_one_text_if_they_begin_alike() -> None:
    long = " ".join(words(number) for number in range(100))
    assert len(cut(long).split()) == s1.MAX_WORDS
    assert distinct([Row(0, long + " a", "1"), Row(1, long + " b", "1")]) == [Row(0, cut(long), "1")]


def test_links_are_cut_out() -> None:
    assert cut("Join  us: https://t.co/x1 today\n#now") == "Join us: today #now"


def test_nothing_is_learnt_under_any_seed_that_is_held_out_under_another() -> None:
    learnt, asked = set(), set()
    for seed in range(5):
        made = task("sms", 0, made_up("sms"), 100, 50, seed)
        learnt |= {key(text(sample)) for sample in made.train}
        asked |= {key(text(sample)) for sample in made.test}
    assert len(learnt) > 200
    assert len(asked) > 100
    assert not learnt & asked
    assert 0.28 < sum(held_out(words(number)) for number in range(3000)) / 3000 < 0.39


def test_labels_are_equally_frequent_until_one_runs_out() -> None:
    rows = {"a": [Row(n, f"a{n}", "a") for n in range(100)], "b": [Row(n, f"b{n}", "b") for n in range(3)]}
    assert Counter(row.label for row in evenly(rows.values(), 5, random.Random(0))) in (
        Counter({"a": 3, "b": 2}),
        Counter({"a": 2, "b": 3}),
    )
    assert Counter(row.label for row in evenly(rows.values(), 20, random.Random(0))) == Counter({"a": 17, "b": 3})
    with pytest.raises(ValueError, match="104 wanted, the source has 103"):
        evenly(rows.values(), 104, random.Random(0))


def test_five_tasks_in_their_order_with_all_their_labels(five: list[Task]) -> None:
    assert [each.name for each in five] == ["sms", "trec6", "movie", "author", "r8"]
    for each in five:
        assert sorted(each.labels) == sorted(LABELS[each.name].values())
        for samples, num in ((each.train, 40), (each.test, 20)):
            counts = Counter(sample.messages[1].content for sample in samples)
            assert counts.total() == num
            assert set(counts) == set(each.labels)
            assert max(counts.values()) - min(counts.values()) <= 1
            assert {sample.task for sample in samples} == {each.name}


def test_an_answer_is_the_label_of_its_row(five: list[Task]) -> None:
    for partition, each in enumerate(five):
        rows = {f"{partition}-{row.number}-0": row for row in made_up(each.name)}
        for sample in [*each.train, *each.test]:
            assert text(sample) == f"Text: {rows[sample.id].text}\nLabel:"
            assert sample.messages[1].content == LABELS[each.name][rows[sample.id].label]


def test_the_same_seed_makes_the_same_tasks_and_another_others(
    monkeypatch: pytest.MonkeyPatch, five: list[Task]
) -> None:
    assert s1.tasks(40, 20, seed=7) == five
    other = s1.tasks(40, 20, seed=8)
    assert [each.train for each in other] != [each.train for each in five]
    assert [each.labels for each in other] != [each.labels for each in five]


def test_a_longer_run_is_asked_the_same(five: list[Task]) -> None:
    assert [each.test for each in s1.tasks(60, 20, seed=7)] == [each.test for each in five]


def ids(samples: list[Sample]) -> list[str]:
    return [sample.id for sample in samples]


def flat(tasks: list[Task]) -> list[Sample]:
    return [sample for each in tasks for sample in each.train]


def test_time_is_the_place_in_the_stream(five: list[Task]) -> None:
    for samples in (flat(five), blurry(five, 7), recurring(five, 7)):
        assert [sample.event_time for sample in samples] == [float(place) for place in range(200)]


def test_blurred_tasks_have_a_tenth_of_the_others(five: list[Task]) -> None:
    samples = blurry(five, seed=7)
    assert sorted(ids(samples)) == sorted(ids(flat(five)))
    guests = Counter()
    for place, each in enumerate(five):
        stretch = samples[40 * place : 40 * (place + 1)]
        counts = Counter(sample.task for sample in stretch)
        assert counts.pop(each.name) == 36
        guests.update((each.name, name) for name in counts)
    assert set(guests) == {(a.name, b.name) for a in five for b in five if a is not b}
    assert ids(blurry(five, seed=7)) == ids(samples)
    assert ids(blurry(five, seed=8)) != ids(samples)


def test_recurring_tasks_come_back_in_stretches(five: list[Task]) -> None:
    for seed in range(20):
        samples = recurring(five, seed)
        assert sorted(ids(samples)) == sorted(ids(flat(five)))
        stretches = [samples[start : start + 10] for start in range(0, 200, 10)]
        assert all(len({sample.task for sample in stretch}) == 1 for stretch in stretches)
        names = [stretch[0].task for stretch in stretches]
        assert all(one != other for one, other in pairwise(names))
        assert set(Counter(names).values()) == {4}


@pytest.mark.model
def test_all_labels_begin_with_tokens_of_their_own() -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(packaged_model())
    first = {}
    for name, words in LABELS.items():
        for label, word in words.items():
            sample = s1._sample(name, 0, Row(0, "some text", label))
            labels = encode_chat(tokenizer, sample.messages, 512).labels
            first[word] = next(token for token in labels if token != IGNORE)
    assert len(first) == 20
    assert len(set(first.values())) == 20


@pytest.mark.downloads
def test_the_real_tasks() -> None:
    made = s1.tasks(num_train=200, num_test=50, seed=0)
    for partition, each in enumerate(made):
        assert (len(each.train), len(each.test)) == (200, 50)
        assert not {key(text(sample)) for sample in each.train} & {key(text(sample)) for sample in each.test}
        assert all(sample.id.startswith(f"{partition}-") for sample in each.train)
        counts = Counter(sample.messages[1].content for sample in each.train)
        assert max(counts.values()) - min(counts.values()) <= 1
    # Of each task the number of texts that are left, by which a silent change in the sorting out would be seen.
    assert {name: len(distinct(rows)) for name, rows in s1.sources().items()} == {
        "sms": 4463,
        "trec6": 5375,
        "movie": 9171,
        "author": 5616,
        "r8": 7550,
    }
