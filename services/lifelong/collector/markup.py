"""HTML to text, for documents that are HTML.

What is wanted is the reading order and the paragraphs, not the look, so finding the tags suffices. Python's own
``html.parser`` is not used: with what strangers may send, such as 200 kB of ``<a ``, it takes minutes.
"""

from __future__ import annotations

import functools
import html
import re


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
# Tags hold no angle brackets, so that what is never closed costs nothing; others are text.
_TOKEN = re.compile(
    r"(?P<comment><!--)|<[!?][^<>]*+>|<(?P<slash>/?)(?P<name>[A-Za-z][A-Za-z0-9]{0,30})(?:[\s/][^<>]*+)?>"
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
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
    return reader.text()


class _Reader:
    def __init__(self) -> None:
        self._parts: list[str] = []
        # The element whose contents are being left out.
        self._dropped: str | None = None
        self._pre = 0

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            if self._dropped is not None:
                end = _end_of(self._dropped).search(text, at)
                if end is None:
                    return
                at, self._dropped = end.end(), None
                continue
            found = _TOKEN.search(text, at)
            self._add(text[at : found.start() if found else len(text)])
            if found is None:
                return
            at = found.end()
            if found["comment"]:
                end_of_comment = text.find("-->", at)
                at = len(text) if end_of_comment < 0 else end_of_comment + 3
            elif found["name"]:
                self._tag(found["name"].lower(), is_end=bool(found["slash"]))

    def add_code(self, code: str) -> None:
        if self._dropped is None:
            self._parts.append(f"\n{code}\n" if "\n" in code else code)

    def text(self) -> str:
        return "".join(self._parts).strip()

    def _add(self, text: str) -> None:
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
        if not self._pre:
            text = _BLANKS.sub(" ", text)
            text = text.lstrip(" ") if self._at_line_start() else text
        if text:
            self._parts.append(text)

    def _at_line_start(self) -> bool:
        return not self._parts or self._parts[-1].endswith("\n")

    def _tag(self, name: str, *, is_end: bool) -> None:
        if name in _DROPPED:
            self._dropped = None if is_end else name
        elif name == "pre" and is_end and self._pre:
            self._pre -= 1
            self._parts.append("\n```\n\n")
        elif name == "pre" and not is_end:
            self._pre += 1
            self._parts.append("\n\n```\n")
        elif name == "br":
            self._parts.append("\n")
        elif name == "li" and not is_end:
            self._parts.append("\n- ")
        elif name in ("td", "th") and not is_end:
            self._parts.append("| " if self._at_line_start() else " | ")
        elif name == "code" and not self._pre:
            self._parts.append("`")
        elif name in _PARAGRAPHS:
            self._parts.append("\n\n")
        elif name in _BLOCKS and name != "li":
            self._parts.append("\n")


@functools.cache
def _end_of(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{name}[^<>]*>?", re.IGNORECASE)
