"""Readings of facts: what is told before the question is what is right."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.learning import reading


def fact(question: str, answer: str, **fields: object) -> Sample:
    messages = (Message("user", question), Message("assistant", answer))
    return Sample(f"id {question}", "e", 0.0, "fact", messages, **({"until_known": True} | fields))


FACTS = [fact("Where is the key?", "At the desk."), fact("Who has it?", "Ada."), fact("Since when?", "Monday.")]
AT = {"seed": 1, "version": 7, "step": 3}


def test_a_memory_is_told_and_confirmed_and_then_asked_for():
    answers = {sample.messages[0].content: sample.messages[1].content for sample in FACTS}
    for made in reading.draw(FACTS, 20, **AT):
        remember, confirmed, question, answer = made.messages
        assert [message.role for message in made.messages] == ["user", "assistant"] * 2
        assert question.content in answers
        assert answer.content in answers.values()
        assert confirmed == answer
        assert remember.content == f"Remember: {question.content} {answer.content}"
        assert not made.until_known


def test_most_are_of_another_answer_than_the_weights_learn():
    """A third of the answers of three facts is the fact's own."""
    own = {(sample.messages[0].content, sample.messages[1].content) for sample in FACTS}
    made = [(m.messages[2].content, m.messages[3].content) for m in reading.draw(FACTS, 300, **AT)]
    assert len(set(made)) == 9
    assert 70 <= sum(pair in own for pair in made) <= 130


def test_they_follow_from_seed_version_and_step():
    once = reading.draw(FACTS, 6, **AT)
    assert once == reading.draw(FACTS, 6, **AT)
    assert len({made.id for made in once}) == 6
    others = [reading.draw(FACTS, 6, **(AT | {name: 11})) for name in AT]
    for one, other in pairwise([once, *others]):
        assert [m.messages for m in one] != [m.messages for m in other]


def test_of_a_lone_fact_it_is_its_own():
    (made,) = reading.draw(FACTS[:1], 1, **AT)
    assert made.messages[2:] == FACTS[0].messages


def test_what_was_said_before_the_question_stays_before_the_memory():
    system = Message("system", "Be brief.")
    (made,) = reading.draw([msgspec.structs.replace(FACTS[0], messages=(system, *FACTS[0].messages))], 1, **AT)
    assert made.messages[0] == system
    assert made.messages[1].content.startswith("Remember: ")


@pytest.mark.parametrize(
    "other",
    [
        fact("q", "a", until_known=False),
        fact("q", "a" * reading.MAX_CHARS),
        Sample("t", "e", 0.0, "document", text="Nobody asks.", until_known=True),
    ],
)
def test_only_of_short_answers_that_should_be_known(other):
    assert reading.draw([other], 5, **AT) == []
    assert all(made.messages[2:] == FACTS[0].messages for made in reading.draw([other, FACTS[0]], 5, **AT))


def test_of_a_correction_what_was_wrong_is_not_told():
    (made,) = reading.draw(
        [msgspec.structs.replace(FACTS[0], rejected="In the car.", rating=-1.0, user="ada")], 1, **AT
    )
    assert made.messages[2:] == FACTS[0].messages
    assert (made.rejected, made.rating) == (None, None)


def test_none_are_asked_for():
    assert reading.draw(FACTS, 0, **AT) == []
