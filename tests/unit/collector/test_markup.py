from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.collector.clean import tidy
from lifelong.collector.markup import to_text

PAGE = """<!DOCTYPE html>
<html><head><title>Gone</title><style>p { color: red }</style></head>
<body><script>if (a < b) alert("</p>")</script>
<h1>Plans &amp; prices</h1>
<p>The <b>Pro</b> plan
costs 29&nbsp;&euro;.</p><ul><li>support</li><li>exports</li></ul>
<table><tr><td>a</td><td>b</td></tr></table>
<pre>if  x:
    y</pre>
<p>Call <code>run()</code>.<br>Then wait.</p></body></html>"""


def test_a_page_becomes_its_text() -> None:
    assert tidy(to_text(PAGE)) == (
        "Plans & prices\n\nThe Pro plan costs 29 €.\n\n- support\n- exports\n\n| a | b\n\n"
        "```\nif  x:\n    y\n```\n\nCall `run()`.\nThen wait."
    )


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d: pass",
        "std::vector<int> v; List<String> names;",
        "I <3 you",
        "Write <b> before it.",
        "AT&amp;T stays as it is where there is no markup",
        "Use `<b>bold</b>` for bold.",
        "```html\n<p>kept</p>\n```",
        "<notatag>text</notatag>",
        "mail <ada@example.com>",
    ],
)
def test_what_is_no_markup_stays(text: str) -> None:
    assert to_text(text) == text


def test_code_in_a_page_with_markup_is_kept() -> None:
    assert tidy(to_text("<p>Use `<i>x</i>` so:</p>\n```\n<div>kept</div>\n```\n")) == (
        "Use `<i>x</i>` so:\n\n```\n<div>kept</div>\n```"
    )


def test_what_is_never_closed_still_gives_its_text() -> None:
    assert to_text("<div><p>one<p>two</b>") == "one\n\ntwo"


@given(st.lists(st.sampled_from([*"<>/!-[]?`~&;'\" \nabp=#1", "</p>", "<p>", "<!--", "<script>", "&amp"])).map("".join))
def test_anything_is_read_without_an_error(text: str) -> None:
    to_text(text)
    to_text(text + "</p>")


@pytest.mark.parametrize("piece", ["<", "<!--", "<a ", "</", "`", "``a", "<![CDATA[", "<p>", "&#", "<div x='", "~~~\n"])
def test_no_quadratic_time(piece: str) -> None:
    to_text("<br></p>" + piece * (200_000 // len(piece)))
