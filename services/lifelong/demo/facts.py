"""What browsers can do since 2023, from MDN's browser compatibility data 8.1.9 (public domain, CC0 1.0).

Made by ``examples/browser_facts/extract.py``. Newer than the default model, so it cannot know them.
"""

from __future__ import annotations

import random
from importlib import resources

import msgspec


class BrowserFact(msgspec.Struct, frozen=True):
    question: str
    answer: str
    text: str
    """The same in a sentence, as a document would say it."""
    url: str

    def is_told_by(self, answer: str) -> bool:
        """Whether an answer names the right browser version."""
        wanted = self.answer.rstrip(".").lower()
        given = " ".join(answer.lower().split())
        # "Firefox 11" must not be found in "Firefox 110" or "Firefox 11.5".
        start = given.find(wanted)
        rest = given[start + len(wanted) :]
        return start >= 0 and not rest[:1].isdigit() and not (rest[:1] == "." and rest[1:2].isdigit())


def load_facts() -> list[BrowserFact]:
    text = resources.files("lifelong.demo").joinpath("browser_facts.jsonl").read_bytes()
    return msgspec.json.decode(b"[" + b",".join(text.splitlines()) + b"]", type=list[BrowserFact])


def choose(num_facts: int, seed: int = 0) -> list[BrowserFact]:
    """Some of them, all about different features and spread over the browsers."""
    facts = load_facts()
    random.Random(seed).shuffle(facts)
    return facts[:num_facts]
