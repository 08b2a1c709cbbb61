"""What goes into a step beside what is new."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from lifelong.learning.replay import BalancedReservoir
from lifelong.learning.settings import LearningSettings
from lifelong.trainer.mixing import Mixture

SETTINGS = LearningSettings(anchor_samples=1, reading_samples=0)


@pytest.fixture
def facts(new_sample):
    return [new_sample(number, until_known=True) for number in range(8)]


@pytest.fixture
def anchors(new_sample):
    return [msgspec.structs.replace(new_sample(n, task="anchor"), id=f"anchor-{n}") for n in range(4)]


@pytest.fixture
def replay(facts):
    """Of which the first one is known no more."""
    found = BalancedReservoir(100, seed=0)
    for fact in facts:
        found.add(fact)
    found.note_known({fact.id: 2.0 if fact is facts[0] else 0.01 for fact in facts}, 0.1)
    return found


def mixture(replay, anchors, to_know=(), **fields) -> Mixture:
    return Mixture(replay, anchors, to_know, SETTINGS, version=3, num_old=2, **fields)


def test_the_bases_own_words_take_the_place_of_old_samples_that_are_not_there(anchors, new_sample):
    young = BalancedReservoir(100, seed=0)
    assert Counter(s.task for s in mixture(young, anchors)(0)) == {"anchor": 3}
    young.add(new_sample(0))
    assert Counter(s.task == "anchor" for s in mixture(young, anchors)(0)) == {True: 2, False: 1}


def test_a_fact_that_is_known_no_more_goes_first_four_times_or_until_it_is_known(replay, anchors, facts):
    lapsed = facts[0].id
    mix = mixture(replay, anchors)
    assert all(lapsed in [s.id for s in mix(step)] for step in range(4))
    later = [s.id for step in range(4, 12) for s in mix(step)]
    assert later.count(lapsed) < 8
    known = mixture(replay, anchors)
    assert lapsed in [s.id for s in known(0)]
    known.losses[lapsed] = 0.05
    assert [s.id for step in range(1, 9) for s in known(step)].count(lapsed) < 8


def test_facts_take_twice_as_many_and_an_attempt_goes_on_where_the_last_one_ended(replay, anchors, facts):
    assert len(mixture(replay, anchors, facts[:1])(0)) == 5
    first, second = mixture(replay, anchors), mixture(replay, anchors, first_step=1)
    first(0)
    second.losses |= first.losses
    assert {s.id for s in first(1)} == {s.id for s in second(0)}
    assert first.drawn.keys() == {s.id for step in (0, 1) for s in mixture(replay, anchors)(step)} - {
        anchor.id for anchor in anchors
    }
