"""What later steps want to know of a sample without reading it again."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter

# First word of the Unicode name of a letter → ISO 15924 code of the script.
_SCRIPTS = {
    "LATIN": "Latn", "CYRILLIC": "Cyrl", "GREEK": "Grek", "ARABIC": "Arab", "HEBREW": "Hebr", "DEVANAGARI": "Deva",
    "BENGALI": "Beng", "GURMUKHI": "Guru", "GUJARATI": "Gujr", "TAMIL": "Taml", "TELUGU": "Telu", "KANNADA": "Knda",
    "MALAYALAM": "Mlym", "SINHALA": "Sinh", "THAI": "Thai", "LAO": "Laoo", "TIBETAN": "Tibt", "MYANMAR": "Mymr",
    "GEORGIAN": "Geor", "ARMENIAN": "Armn", "ETHIOPIC": "Ethi", "KHMER": "Khmr", "MONGOLIAN": "Mong",
    "HANGUL": "Hang", "HIRAGANA": "Kana", "KATAKANA": "Kana", "KATAKANA-HIRAGANA": "Kana", "CJK": "Hani",
}  # fmt: skip

# Scripts that in practice one living language is written in.
_LANGUAGES = {
    "Grek": "el", "Hebr": "he", "Gujr": "gu", "Guru": "pa", "Taml": "ta", "Telu": "te", "Knda": "kn", "Mlym": "ml",
    "Sinh": "si", "Thai": "th", "Laoo": "lo", "Tibt": "bo", "Mymr": "my", "Geor": "ka", "Armn": "hy", "Khmr": "km",
    "Hang": "ko", "Kana": "ja",
}  # fmt: skip

_LOOKED_AT = 1000


def language(text: str) -> str | None:
    """A BCP 47 tag: the language where the script alone tells it, else ``und-`` and the script.

    An honest guess: ``und-Latn`` says that this is Latin script, not which of a thousand languages. ``None``: no
    letters. Japanese is told from Chinese by its kana.
    """
    counts: Counter[str] = Counter()
    for character, number in Counter(text[:_LOOKED_AT]).items():
        if character.isalpha():
            counts[_script(character)] += number
    if not counts:
        return None
    if counts["Kana"] * 10 >= counts["Hani"] + counts["Kana"] > 0 and counts["Kana"]:
        counts["Kana"] += counts.pop("Hani", 0)
    script = max(counts, key=lambda name: (counts[name], name))
    return _LANGUAGES.get(script, "und-" + script)


@functools.lru_cache(maxsize=10_000)
def _script(letter: str) -> str:
    return _SCRIPTS.get(unicodedata.name(letter, "").split(" ")[0], "Zyyy")
