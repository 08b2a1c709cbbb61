"""S3, on made-up releases of the data; and once on the real ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from benchmarks.learning import facts as s3
from benchmarks.learning.facts import BROWSERS, NONE_YET, Fact, Feature, choose, features, kind_of, phrase, samples

from lifelong.collector.config import CollectorSettings
from lifelong.collector.samples import make
from lifelong.contracts import events

RELEASES = {browser: {"releases": {"1": {"status": "retired"}, "9": {"status": "current"}}} for browser in BROWSERS}


def compat(chrome: Any = "1", firefox: Any = "1", safari: Any = "1", standard: bool = True) -> dict[str, Any]:
    supports = {"chrome": chrome, "firefox": firefox, "safari": safari}
    return {
        "__compat": {
            "support": {
                browser: support if isinstance(support, dict | list) else {"version_added": support}
                for browser, support in supports.items()
            },
            "status": {"standard_track": standard},
        }
    }


def release(**properties: Any) -> dict[str, Any]:
    return {"browsers": RELEASES, "css": {"properties": properties}}


def kinds(first: dict[str, Any], second: dict[str, Any]) -> dict[str, str]:
    """Of the features in Chrome, by the last word of the question."""
    return {feature.path[-1]: kind_of(feature) for feature in features(first, second) if feature.browser == "chrome"}


def test_what_became_of_a_feature() -> None:
    first = release(
        same=compat("1"), nowhere=compat(False), came=compat(False), corrected=compat("1"), late=compat(False)
    )
    second = release(
        same=compat("1"),
        nowhere=compat(False),
        came=compat("12"),
        corrected=compat("2"),
        late=compat("9"),
        new=compat("12"),
        newly_written=compat("1"),
        forgotten=compat("1"),
    )
    assert kinds(first, second) == {
        "same": "kept",
        "nowhere": "unsupported",
        "came": "came",
        "corrected": "corrected",
        # It was in the browser already when the first release said that it was not.
        "late": "unclear",
        "new": "new",
        "forgotten": "unclear",
    }


@pytest.mark.parametrize(
    "support",
    [
        None,
        True,
        "preview",
        "≤1",
        {"version_added": "1", "prefix": "-moz-"},
        {"version_added": "1", "flags": [{"name": "x"}]},
        {"version_added": "1", "version_removed": "9"},
        {"version_added": "1", "partial_implementation": True},
        [{"version_added": "9"}, {"version_added": "1", "prefix": "-webkit-"}],
    ],
)
def test_a_feature_without_one_plain_answer_is_not_asked_for(support: Any) -> None:
    plain, odd = release(x=compat("12")), release(x=compat(support))
    assert [feature.browser for feature in features(plain, odd)] == ["firefox", "safari"]
    # Nor is it new, if it was there under conditions before.
    assert [feature.browser for feature in features(odd, plain)] == ["firefox", "safari"]


def test_what_is_no_standard_is_not_asked_for() -> None:
    assert features(release(), release(x=compat(standard=False))) == []


def test_no_question_has_two_answers() -> None:
    data = release(x=compat("1"))
    data["html"] = {"elements": {"a": {"href": compat("1")}, "b": compat("1")}}
    data["api"] = {"A": {"__compat": compat("1")["__compat"], "load": compat("1"), "load_event": compat("1")}}
    asked = Counter(feature.question for feature in features(data, data))
    assert set(asked.values()) == {1}
    assert {question.removeprefix("Since which version does Safari support ") for question in asked} >= {
        "the CSS property x?",
        "the attribute href of the HTML element <a>?",
        "the HTML element <b>?",
        "the web interface A?",
        "A.load?",
        "the event load of A?",
    }


def test_a_selector_is_written_with_its_colons_or_not_asked_for() -> None:
    path = ("css", "selectors", "after")
    assert phrase(path, {"mdn_url": "x/docs/Web/CSS/::after"}) == "the CSS selector ::after"
    assert phrase(path, {"mdn_url": "x/docs/Web/CSS/Pseudo"}) is None


def made_up(num: int) -> list[Feature]:
    """Many of each kind, in families of five."""
    values = {
        "kept": ("1", "1", False),
        "unsupported": (NONE_YET, NONE_YET, False),
        "came": (NONE_YET, "12", True),
        "corrected": ("1", "2", False),
        "new": (None, "12", True),
    }
    made = []
    for number in range(num):
        for kind, (first, second, came) in values.items():
            for browser in BROWSERS:
                path = ("api", f"A{number // 5}", f"{kind}{number}")
                made.append(Feature(path, browser, f"{browser} {path[2]}?", first, second, came))
    return made


def test_so_many_of_each_kind() -> None:
    first, then = choose(made_up(100), 80, 30, 20, seed=1)
    assert Counter(fact.kind for fact in first) == {"kept": 50, "changed": 30}
    assert Counter(fact.kind for fact in then) == {"changed": 30, "new": 20}
    assert Counter(fact.answer for fact in first if fact.kind == "kept") == {"1": 40, NONE_YET: 10}
    changes = Counter((fact.old, fact.answer) for fact in then if fact.kind == "changed")
    assert changes == {(NONE_YET, "12"): 15, ("1", "2"): 15}


def test_what_changes_was_told_before_and_what_is_new_was_not() -> None:
    first, then = choose(made_up(100), 80, 30, 20, seed=1)
    before = {fact.question: fact for fact in first}
    assert len(before) == 80
    assert len({fact.question for fact in then}) == 50
    for fact in then:
        if fact.kind == "changed":
            assert before[fact.question] == Fact(fact.question, str(fact.old), None, "changed")
            assert fact.answer != fact.old
        else:
            assert fact.question not in before
            assert fact.old is None


def test_what_is_kept_stands_beside_what_changes() -> None:
    features = made_up(100)
    families = {feature.question: feature.family for feature in features}
    first, _ = choose(features, 60, 30, 0, seed=1)
    changed = {families[fact.question] for fact in first if fact.kind == "changed"}
    assert {families[fact.question] for fact in first if fact.kind == "kept"} <= changed


def test_the_same_seed_chooses_the_same_facts() -> None:
    assert choose(made_up(40), 40, 20, 10, seed=1) == choose(made_up(40), 40, 20, 10, seed=1)
    assert choose(made_up(40), 40, 20, 10, seed=1) != choose(made_up(40), 40, 20, 10, seed=2)
    with pytest.raises(ValueError, match="ask for fewer"):
        choose(made_up(10), 100, 90, 10, seed=1)


def test_a_sample_is_what_the_collector_makes_of_such_an_event() -> None:
    fact = Fact("Since which version does Firefox support the CSS property rotate?", "72", None, "kept")
    data = events.Fact(subject="rotate", relation="since", object=fact.answer, question=fact.question)
    event = events.Event(id="fact-5-0", source="/bench", type="lifelong.fact", time=3.0, data=data)
    assert tuple(samples([fact], partition=5, start=3.0)) == make(event, "5-0", CollectorSettings()).samples


@pytest.mark.downloads
def test_the_real_facts() -> None:
    first, then = s3.facts(500, 150, 150, seed=0)
    assert Counter(fact.kind for fact in first) == {"kept": 350, "changed": 150}
    assert Counter(fact.kind for fact in then) == {"changed": 150, "new": 150}
    assert len({fact.question for fact in [*first, *then]}) == 650
    assert sum(fact.old == NONE_YET for fact in then) == 75
    asked = s3.facts(500, 150, 150, seed=1)
    assert {fact.question for fact in asked[0]} != {fact.question for fact in first}
