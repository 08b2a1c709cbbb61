"""Text made regular, in a way that suits every language."""

from __future__ import annotations

import re
import unicodedata

from lifelong.errors import DecodeError

# Control characters but tab and newline, the byte order mark, and code points that are no characters. Joiners and
# direction marks stay: Persian, Hindi and emoji are spelt with them.
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufeff\ufffe\uffff]")
_DAMAGE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufffd\ufffe\uffff\ue000-\uf8ff]")
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_BLANK_LINES = re.compile(r"\n{3,}")
_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
_BLANKS = re.compile(r"(?<=\S)[ \t]{2,}")
_FENCED = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)

MAX_DAMAGE = 0.05
"""Share of characters that are no text at all from which on a text counts as garbled."""


def clean(text: str) -> str:
    """NFC, one kind of line end, nothing that is not text, no blanks at the ends of lines. Idempotent.

    Raises:
        DecodeError: ``garbled``, when this is no text: binary data, or text in a lost encoding.
    """
    damaged = len(_DAMAGE.findall(text))
    if damaged > MAX_DAMAGE * len(text):
        raise DecodeError("garbled", f"{damaged} of {len(text)} characters are control or replacement characters")
    # NFC last of all: removing a character may bring a letter and its accent together.
    text = _NO_TEXT.sub("", _LINE_END.sub("\n", text))
    return _ends(unicodedata.normalize("NFC", text)).strip()


def _ends(text: str) -> str:
    # No regular expression: those for trailing blanks take quadratic time on long runs of blanks inside a line.
    return "\n".join(map(str.rstrip, text.split("\n")))


def tidy(text: str) -> str:
    """What ``clean`` gives, with the blanks of prose made single and blank lines at most one. Code stays as it is."""
    parts = []
    end = 0
    for block in _FENCED.finditer(text):
        parts += [_tidy_prose(text[end : block.start()]), block[0]]
        end = block.end()
    parts.append(_tidy_prose(text[end:]))
    return "".join(parts).strip()


def _tidy_prose(text: str) -> str:
    lines = _ends(_SPACES.sub(" ", text)).split("\n")
    # Lines that are indented by a tab or four blanks are code or tables.
    lines = [line if line.startswith(("\t", "    ")) else _BLANKS.sub(" ", line) for line in lines]
    return _BLANK_LINES.sub("\n\n", "\n".join(lines))


def num_letters(text: str) -> int:
    """Letters and digits of any script."""
    return sum(map(str.isalnum, text))
