from __future__ import annotations

import pytest

from lifelong.demo.facts import BrowserFact, choose, load_facts
from lifelong.demo.summary import Asked, Summary

FACT = BrowserFact("Which version?", "Firefox 11.", "text", "url")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Firefox 11.", True),
        ("It was  firefox 11", True),
        ("Firefox 110.", False),
        ("Firefox 11.5", False),
        ("Firefox 11. Chrome came later.", True),
        ("Chrome 11.", False),
        ("", False),
    ],
)
def test_only_the_right_version_is_right(answer: str, right: bool) -> None:
    assert FACT.is_told_by(answer) is right


def test_facts_are_many_and_all_different() -> None:
    facts = load_facts()
    assert len(facts) > 100
    assert len({fact.question for fact in facts}) == len(facts)
    assert all(fact.is_told_by(fact.answer) and fact.is_told_by(fact.text.replace(", released", "")) for fact in facts)
    assert choose(20) == choose(20)


def test_learning_is_seen_only_if_weights_changed_and_answers_with_them() -> None:
    def summary(after: int, weights: str = "b", lone: bool = True) -> Summary:
        asked = [Asked("q", "r", knows_after=number < after) for number in range(4)]
        return Summary(asked=asked, weights_before="a", weights_after=weights, lone_right=lone)

    assert summary(3).learning_was_seen()
    assert not summary(0).learning_was_seen()
    assert not summary(4, weights="a").learning_was_seen()
    assert not summary(4, lone=False).learning_was_seen()
