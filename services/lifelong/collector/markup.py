"""HTML to text, for documents that are HTML.

Python's own parser suffices: what is wanted is the reading order and the paragraphs, not the look.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BLOCKS = _names(
    "address article aside blockquote body dd details dialog div dl dt fieldset figcaption figure footer form h1 h2 h3"
    " h4 h5 h6 header hr html li main nav ol p pre section summary table tbody tfoot thead tr ul"
)
_PARAGRAPHS = _names("p h1 h2 h3 h4 h5 h6 pre blockquote table ul ol dl article section")
_DROPPED = _names("script style noscript template svg math iframe object head")
_INLINE = _names("a abbr b bdi bdo cite code del dfn em i ins kbd label mark q s small span strong sub sup td th u")
_TAGS = "|".join(sorted(_BLOCKS | _INLINE | _DROPPED, key=len, reverse=True))

# A document is taken for HTML only if it ends an element that HTML has, or says so: "a < b" and "Vec<T>" are no markup.
_LOOKS = re.compile(rf"<!doctype html|</(?:{_TAGS})\s*>|<br\s*/?>", re.IGNORECASE)
# Possessive, so that a megabyte of backticks takes no quadratic time.
_CODE = re.compile(r"^(```|~~~).*?^\1[^\n]*$|(?<!`)(`++)[^`\n]++\2(?!`)", re.MULTILINE | re.DOTALL)
_BLANKS = re.compile(r"[ \t\n\r\f]+")


def to_text(text: str) -> str:
    """The text of an HTML document; anything else comes back unchanged. Markdown code is never touched."""
    if "<" not in text or not _LOOKS.search(_CODE.sub("", text)):
        return text
    reader = _Reader()
    end = 0
    for code in _CODE.finditer(text):
        reader.feed(text[end : code.start()])
        reader.add_code(code[0])
        end = code.end()
    reader.feed(text[end:])
    reader.close()
    return reader.text()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._dropping: list[str] = []
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._dropping or tag in _DROPPED:
            if tag in _DROPPED:
                self._dropping.append(tag)
            return
        if tag == "pre":
            self._pre += 1
            self._parts.append("\n\n```\n")
        elif tag == "br":
            self._parts.append("\n")
        elif tag == "li":
            self._parts.append("\n- ")
        elif tag in ("td", "th"):
            self._parts.append(" | ")
        elif tag == "code" and not self._pre:
            self._parts.append("`")
        else:
            self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._dropping:
            if tag in self._dropping:
                del self._dropping[self._dropping.index(tag) :]
            return
        if tag == "pre" and self._pre:
            self._pre -= 1
            self._parts.append("\n```\n\n")
        elif tag == "code" and not self._pre:
            self._parts.append("`")
        else:
            self._break(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _DROPPED:
            self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        if not self._dropping:
            self._parts.append(data if self._pre else _BLANKS.sub(" ", data))

    def add_code(self, code: str) -> None:
        if not self._dropping:
            self._parts.append(f"\n{code}\n" if "\n" in code else code)

    def _break(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self._parts.append("\n\n")
        elif tag in _BLOCKS:
            self._parts.append("\n")

    def text(self) -> str:
        return re.sub(r"(?<=\n) (?=\S)", "", "".join(self._parts)).strip()
