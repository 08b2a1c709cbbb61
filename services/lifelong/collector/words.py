"""Words of any language, without a dictionary."""

from __future__ import annotations

import re

# Scripts that put no spaces between words: each character counts as a word. Others split at what is no letter,
# digit or underscore; in scripts whose vowel signs are not letters (Devanagari, Thai) that gives parts of words,
# which serve as well for comparing texts.
_UNSPACED = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def words(text: str) -> list[str]:
    return _WORD.findall(text)
