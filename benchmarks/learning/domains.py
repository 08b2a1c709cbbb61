"""S2: text of one kind after the other, to be predicted, and back to the first.

Manual pages in English, Friends, the Quran in English, manual pages in German, Python's What's New 2.x, and manual
pages in English that have not been seen yet. Domains differ in how many bytes a token has, so compare them in bits per
byte (``num_bytes``), never per token.

A third of the documents, by the hash of their names, is held out for every seed: pages, episodes, chapters, sections.
A page and its translation have the same name.
"""

from __future__ import annotations

import gzip
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
from benchmarks.learning.data import debian, npm
from benchmarks.learning.draws import evenly, held_out
from benchmarks.learning.roff import prose
from benchmarks.learning.tasks import in_time, key, orange

from lifelong.collector.features import language
from lifelong.contracts.samples import Sample

MANPAGES = ("manpages", "usr/share/man/man?/*", "10089bccb5692e35ba3356ede4b9f8d811277b1130d1712f57ed68fd2e135471")
MANPAGES_DE = ("manpages-de", "usr/share/man/de/*", "a3c1be368f79b5ca485145e013735254f848dc8fadfbfe2e6ca33bcedefb12ab")
WHATS_NEW = (
    "python3.11-doc",
    "usr/share/doc/python3.11/html/_sources/whatsnew/2.*",
    "5b63ce07d88c7fc53ec74c579b04cf1c97a663a74835e965db6e046c14273e97",
)
QURAN = ("quran-json", "3.1.2", "d1454352cae9c7506d28d160486b2eb62472d45e36e01cee192d8ade889a6d49")

MAX_BYTES = 320
"""Of one passage: 60 to 100 tokens of the default model in English."""
MIN_BYTES = 160
FIRST_PARTITION = 10
"""Ids of samples are ``{partition}-{passage}-0``; S1 has the partitions before."""

_PAGE = re.compile(r"(man\d/[^/]+)\.gz$")
_HEADING = re.compile(r"^(?=.+\n([=\-~*^])\1{3,}$)", re.MULTILINE)
_WORD = re.compile(r"\S+\s*")
_WINDOWS = re.compile("[\x80-\x9f]")


class Domain(NamedTuple):
    name: str
    train: list[Sample]
    test: list[Sample]


class Passage(NamedTuple):
    document: str
    text: str


def num_bytes(sample: Sample) -> int:
    """What bits are per, in bits per byte."""
    assert sample.text is not None
    return len(sample.text.encode())


def domains(num_train: int, num_test: int, seed: int) -> list[Domain]:
    """Six: the last is the first again, by name and test, with other samples to train on. The same for the same
    arguments. The time of a training sample is its place in the stream.

    Raises:
        DataError: the packages cannot be had.
        ValueError: a domain has fewer passages.
    """
    made: list[Domain] = []
    for partition, (name, documents) in enumerate(sources().items(), start=FIRST_PARTITION):
        num = num_train * (2 if not made else 1)
        made.append(domain(name, partition, documents, num, num_test, seed))
    first = made[0]
    made[0] = first._replace(train=first.train[:num_train])
    made.append(first._replace(train=first.train[num_train:]))
    timed = iter(in_time(sample for each in made for sample in each.train))
    return [each._replace(train=[next(timed) for _ in each.train]) for each in made]


def sources() -> dict[str, dict[str, str]]:
    """The documents of each domain, by name, in the order of the domains."""
    return {
        "man-en": _manual(debian(*MANPAGES)),
        "friends": _friends(),
        "quran-en": _quran(),
        "man-de": _manual(debian(*MANPAGES_DE)),
        "python-news": _whats_new(),
    }


def domain(name: str, partition: int, documents: Mapping[str, str], num_train: int, num_test: int, seed: int) -> Domain:
    train: list[tuple[int, str]] = []
    test: list[tuple[int, str]] = []
    for offset, passage in enumerate(passages(documents)):
        (test if held_out(passage.document) else train).append((offset, passage.text))
    drawn = [
        [
            _sample(name, partition, offset, text)
            for offset, text in evenly([rows], num, random.Random(f"{name} {split} {seed}"))
        ]
        for split, rows, num in (("train", train, num_train), ("test", test, num_test))
    ]
    return Domain(name, *drawn)


def passages(documents: Mapping[str, str]) -> list[Passage]:
    """In the order of the names. What is said in the same words twice, in a licence for example, is left out."""
    made = [Passage(name, text) for name, document in sorted(documents.items()) for text in pieces(document)]
    times = Counter(key(passage.text) for passage in made)
    return [passage for passage in made if times[key(passage.text)] == 1]


def pieces(text: str) -> Iterator[str]:
    """Of at most ``MAX_BYTES``, cut between words; what is left over at the end and too short is dropped."""
    piece = ""
    for word in _WORD.findall(text):
        if len((piece + word).rstrip().encode()) > MAX_BYTES:
            if len(piece.rstrip().encode()) >= MIN_BYTES:
                yield piece.rstrip()
            # A word that is longer than a passage is none: a line drawn of signs, an address.
            piece = word if len(word.rstrip().encode()) <= MAX_BYTES else ""
        else:
            piece += word
    if len(piece.rstrip().encode()) >= MIN_BYTES:
        yield piece.rstrip()


def _sample(name: str, partition: int, offset: int, text: str) -> Sample:
    """As the collector makes it of a document."""
    return Sample(
        id=f"{partition}-{offset}-0",
        event_id=f"{name}-{offset}",
        event_time=0.0,
        task=name,
        text=text,
        language=language(text),
        num_chars=len(text),
    )


def _manual(files: Mapping[str, bytes]) -> dict[str, str]:
    """Pages by section and name, without the language."""
    pages = {}
    for path, content in files.items():
        if (found := _PAGE.search(path)) is not None:
            pages[found[1]] = prose(gzip.decompress(content).decode(errors="replace"))
    return pages


def _friends() -> dict[str, str]:
    """Episodes, as a script: who, and what is said. Its quotation marks are bytes of Windows-1252 taken for
    Latin-1."""
    episodes: dict[str, list[str]] = {}
    for row in orange("friends-transcripts.tab"):
        who, said = (
            _WINDOWS.sub(lambda found: found[0].encode("latin-1").decode("cp1252", "ignore"), row[column]).strip()
            for column in ("Author", "Quote")
        )
        episodes.setdefault(row["Season & Episode"], []).append(f"{who}: {said}")
    return {name: "\n".join(lines) for name, lines in episodes.items()}


def _quran() -> dict[str, str]:
    """Chapters in the translation of Saheeh International."""
    chapters = msgspec.json.decode(npm(*QURAN, "package/dist/quran_en.json"))
    return {
        f"{chapter['id']:03}": " ".join(verse["translation"] for verse in chapter["verses"]) for chapter in chapters
    }


def _whats_new() -> dict[str, str]:
    """Sections, by release and place, as they are written, with their examples."""
    sections = {}
    for path, content in debian(*WHATS_NEW).items():
        for place, section in enumerate(_HEADING.split(content.decode())[::2]):
            sections[f"{path.rpartition('/')[2]} {place:03}"] = re.sub(r"\n{3,}", "\n\n", section)
    return sections
