"""The prose of a manual page: what a reader reads of it, without tables, listings and layout.

Not a formatter. Pages of the ``man`` macros as they are written by hand; of ``mdoc`` pages nothing is taken.
"""

from __future__ import annotations

import re

_PARAGRAPHS = {"PP", "P", "LP", "IP", "TP", "TQ", "HP", "RS", "RE", "SH", "SS", "sp"}
_SPACED = {"B", "I", "SB", "SM"}
_JOINED = {"BR", "RB", "IR", "RI", "BI", "IB"}
_AFTER_LINK = {"UE", "ME"}
_LISTINGS = {"EX": "EE", "nf": "fi", "TS": "TE", "EQ": "EN"}
_NOT_PROSE = {"ÜBERSETZUNG", "SEE ALSO", "SIEHE AUCH", "COPYRIGHT", "REPORTING BUGS", "FEHLER BERICHTEN", "KOLOPHON"}

_SIGNS = {
    "aq": "'", "dq": '"', "lq": "“", "rq": "”", "oq": "‘", "cq": "’", "bu": "•", "em": "—", "en": "–", "ti": "~",
    "ha": "^", "rs": "\\", "co": "©", "mu": "×", "ga": "`", "at": "@", "sh": "#", "Fo": "«", "Fc": "»", "->": "→",
    "<=": "≤", ">=": "≥", "+-": "±", "mc": "µ", "bq": "„", "Bq": "„", "hy": "-", "ss": "ß", ":u": "ü",
}  # fmt: skip
_PLAIN = {"-": "-", "e": "\\", "~": " ", " ": " ", "0": " ", "'": "'", "`": "`"}
_ESCAPE = re.compile(
    r'\\(?:"(?P<comment>.*)|[fF](?:\[[^]]*\]|\(..|.)|s[-+]?\d+|\*(?:\[[^]]*\]|\(..|.)'
    r"|\[(?P<long>[^]]*)\]|\((?P<short>..)|(?P<one>.)|$)"
)
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|\S)+)')


def prose(page: str) -> str:
    """A paragraph a line."""
    lines = page.splitlines()
    if any(line.startswith(".Dd") for line in lines):
        return ""
    paragraphs: list[list[str]] = [[]]
    until: str | None = None
    skipped = True
    for line in lines:
        request, _, rest = line.removeprefix(".").partition(" ") if line.startswith(".") else ("", "", line)
        if until is not None:
            until = None if request == until else until
        elif request in _LISTINGS:
            until = _LISTINGS[request]
        elif request in _PARAGRAPHS or not line.strip():
            paragraphs.append([])
            if request == "SH":
                # Before the first heading there is no prose.
                skipped = " ".join(_arguments(rest)) in _NOT_PROSE
        elif not skipped:
            paragraphs[-1].append(_words(line, request, rest))
    texts = (" ".join(" ".join(paragraph).split()) for paragraph in paragraphs)
    return "\n".join(text for text in texts if text)


def _words(line: str, request: str, rest: str) -> str:
    if request in _SPACED:
        return " ".join(_arguments(rest))
    if request in _JOINED or request in _AFTER_LINK:
        return "".join(_arguments(rest))
    return "" if line.startswith((".", "'")) else _unescaped(line)


def _arguments(rest: str) -> list[str]:
    return [_unescaped(quoted.replace('""', '"') or bare) for quoted, bare in _ARGUMENT.findall(rest)]


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_sign, text)


def _sign(match: re.Match[str]) -> str:
    if (name := match["long"] or match["short"]) is not None:
        return _SIGNS.get(name, "")
    return _PLAIN.get(match["one"] or "", "")
