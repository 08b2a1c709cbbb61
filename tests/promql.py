"""Enough of PromQL to say which series an expression asks for, and by which labels."""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\[[^\]]*\]|[a-zA-Z_:][a-zA-Z0-9_:]*|\d[\w.]*|[=!]~|[!=<>]=|\S')
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


class Selector(NamedTuple):
    name: str
    text: str
    """With its matchers, without a range: an instant query of its own."""
    labels: tuple[str, ...]
    """That its matchers name."""


def selectors(expr: str) -> list[Selector]:
    found, tokens, at = [], _TOKEN.findall(expr), 0
    while at < len(tokens):
        token, following = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else ""
        at += 1
        if token in _GROUPING:
            at = tokens.index(")", at) + 1
        elif re.match(r"[a-zA-Z_:]", token) and token not in _WORDS and following != "(" and following not in _GROUPING:
            matchers: list[str] = []
            if following == "{":
                end = tokens.index("}", at)
                matchers, at = tokens[at + 1 : end], end + 1
            labels = tuple(part for part in matchers if re.match(r"[a-zA-Z_]", part))
            text = token + ("{" + "".join(matchers) + "}" if matchers else "")
            found.append(Selector(token, text, labels))
    return found


def grouping_labels(expr: str) -> set[str]:
    """The labels after ``by`` and ``on``."""
    lists = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expr)
    return {label.strip() for labels in lists for label in labels.split(",") if label.strip()}
