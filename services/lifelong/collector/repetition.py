"""Text that says the same again and again: logs, boiler-plate, a model caught in a loop.

The limits are those of Gopher (https://arxiv.org/abs/2112.11446, table A1), as shares of all characters. Gopher's
further limits on the *number* of repeated lines are left out: in code and lists short lines repeat by nature. So are
those on paragraphs, whose lines are repeated lines already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lifelong.collector.words import words

MAX_DUPLICATE_LINES = 0.20
MAX_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
MAX_DUPLICATE_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

MIN_WORDS = 50
"""Gopher keeps only documents of at least so many words; below, the shares mean nothing, so nothing is refused."""


def repetition(text: str, factor: float = 1.0) -> str | None:
    """What repeats too much, for people; ``None``: nothing does. ``factor`` multiplies every limit; 0: no limit."""
    if factor == 0:
        return None
    tokens = words(text)
    if len(tokens) < MIN_WORDS:
        return None
    share = _duplicate_share(text.split("\n"))
    if share > factor * MAX_DUPLICATE_LINES:
        return f"{share:.0%} of the characters are in repeated lines"
    lengths = [len(token) for token in tokens]
    num_chars = sum(lengths)
    for n, limit in MAX_TOP_NGRAM.items():
        share = _top_share(tokens, n) / num_chars
        if share > factor * limit:
            return f"one sequence of {n} words makes up {share:.0%} of the text"
    for n, limit in MAX_DUPLICATE_NGRAMS.items():
        share = _repeated_chars(tokens, lengths, n) / num_chars
        if share > factor * limit:
            return f"{share:.0%} of the text is in repeated sequences of {n} words"
    return None


def _duplicate_share(parts: Sequence[str]) -> float:
    """Share of the characters in parts that were there before."""
    seen: set[str] = set()
    duplicate = total = 0
    for part in parts:
        part = part.strip()
        total += len(part)
        if part in seen:
            duplicate += len(part)
        seen.add(part)
    return duplicate / total if total else 0.0


def _top_share(tokens: Sequence[str], n: int) -> int:
    """Characters in the sequence of n words that takes up most of them by occurring at least twice."""
    counts = Counter(zip(*(tokens[i:] for i in range(n)), strict=False))
    return max((sum(map(len, gram)) * count for gram, count in counts.items() if count > 1), default=0)


def _repeated_chars(tokens: Sequence[str], lengths: Sequence[int], n: int) -> int:
    """Characters in sequences of n words that were there before, each character counted once."""
    seen: set[tuple[str, ...]] = set()
    repeated = 0
    counted_to = 0
    for i, gram in enumerate(zip(*(tokens[i:] for i in range(n)), strict=False)):
        if gram in seen:
            repeated += sum(lengths[max(i, counted_to) : i + n])
            counted_to = i + n
        seen.add(gram)
    return repeated
