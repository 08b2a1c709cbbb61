"""A long text cut into pieces, at the best place that keeps each piece short enough."""

from __future__ import annotations

import re
import unicodedata

# From the best place to cut to the worst: between paragraphs, lines, sentences of any language, words.
_CUTS = (
    re.compile(r"\n\n+"),
    re.compile(r"\n+"),
    re.compile(r"(?<=[.!?…؟۔।॥])[\"'”’)\]]*\s+|(?<=[。！？])"),
    re.compile(r"\s+"),
)


def cut(text: str, max_chars: int) -> list[str]:
    """Pieces of at most ``max_chars`` characters, in order, none empty. Only white space is lost between them."""
    return [piece for piece in (p.strip() for p in _cut(text, max_chars, 0)) if piece]


def _cut(text: str, max_chars: int, level: int) -> list[str]:
    if len(text) <= max_chars:
        return [text]
    if level == len(_CUTS):
        return _cut_anywhere(text, max_chars)
    pieces: list[str] = []
    # text[start:end] is in hand; it grows part by part as long as it fits, so that pieces are as whole as they can be.
    start = end = part_start = 0
    cuts = [match.span() for match in _CUTS[level].finditer(text)]
    for part_end, next_start in [*cuts, (len(text), len(text))]:
        if part_end - start <= max_chars:
            end = part_end
        else:
            pieces.append(text[start:end])
            start, end = part_start, part_end
            if part_end - part_start > max_chars:
                pieces += _cut(text[part_start:part_end], max_chars, level + 1)
                start = end = next_start
        part_start = next_start
    pieces.append(text[start:end])
    return pieces


def _cut_anywhere(text: str, max_chars: int) -> list[str]:
    pieces = []
    while len(text) > max_chars:
        at = max_chars
        # An accent stays with its letter.
        while at > max_chars // 2 and unicodedata.combining(text[at]):
            at -= 1
        pieces.append(text[:at])
        text = text[at:]
    return [*pieces, text]
