"""What the base already says, said again: its own answers to general prompts and text that it wrote unasked, mixed into
every micro-batch.

On-policy replay (https://arxiv.org/abs/2605.29495): being samples of the model itself they cost hardly any gradient
while nothing is forgotten, and pull back when something is. Answers alone keep answers; text that is no chat is lost
beside them. A part of all is never learnt and shows the gate what has become of general text. The set is made once, by
the base, when a line begins, and is part of the line's state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.learning.replay import randbelow

TASK = "anchor"
PROMPTS = (
    "What is the capital of Italy?",
    "Who wrote Romeo and Juliet?",
    "How many days are in a week?",
    "What do bees make?",
    "Name a primary color.",
    "What is 7 plus 5?",
    "What language is spoken in Brazil?",
    "Who painted the Mona Lisa?",
    "What is the largest ocean on Earth?",
    "Translate 'good morning' into French.",
    "What does a doctor do?",
    "At what temperature does water boil?",
    "Who was the first person to walk on the Moon?",
    "What is the opposite of hot?",
    "Which planet is known as the Red Planet?",
    "What is the currency of Japan?",
    "Give one tip for better sleep.",
    "What gas do plants absorb from the air?",
    "Who invented the telephone?",
    "What is the plural of mouse?",
    "How many legs does a spider have?",
    "Describe a sunset in one sentence.",
    "What is the tallest mountain in the world?",
    "Which company makes the iPhone?",
    "What is the chemical symbol for gold?",
    "In which country is the city of Cairo?",
    "What is HTML used for?",
    "When did the Second World War end?",
    "What instrument has 88 keys?",
    "Who is the author of Harry Potter?",
    "Is the Earth round?",
    "What is a synonym for happy?",
    "Which animal is called the king of the jungle?",
    "What is Python?",
    "Hello! How are you?",
    "Why is the sky blue?",
)
BEGINNINGS = (
    "The", "In", "It", "When", "There", "He", "She", "After", "A", "For", "This", "As", "Most", "Many", "I", "We",
    "Although", "One", "At", "To", "If", "They", "During", "On", "My", "According", "What", "You", "With", "However",
    "Some", "By", "How", "His", "Because", "Its",
)  # fmt: skip
"""Of text: from there on the base writes what it likes."""
_JUDGED_EVERY = 3

Ask = Callable[[Sequence[str]], Sequence[str]]
"""The base, everything at once."""


def make_anchors(answers: Ask, texts: Ask, prompts: Sequence[str] = PROMPTS) -> list[Sample]:
    """One anchor for each prompt to which the base has an answer, and one for each beginning, in turn.

    Args:
        answers: to prompts. texts: from beginnings, which they include.
    """
    chats = [
        _anchor(f"{index}", messages=(Message("user", prompt), Message("assistant", answer)))
        for index, (prompt, answer) in enumerate(zip(prompts, answers(prompts), strict=True))
        if answer.strip()
    ]
    free = [_anchor(f"text-{index}", text=text) for index, text in enumerate(texts(BEGINNINGS)) if text.strip()]
    return [anchor for pair in zip_longest(chats, free) for anchor in pair if anchor is not None]


def _anchor(name: str, *, messages: tuple[Message, ...] = (), text: str | None = None) -> Sample:
    key = f"{TASK}-{name}"
    return Sample(id=key, event_id=key, event_time=0.0, task=TASK, messages=messages, text=text)


def is_anchor(sample: Sample) -> bool:
    """By its id, which no sample of the stream has: a task may be called anything."""
    return sample.id.startswith(f"{TASK}-")


def learnt(anchors: Sequence[Sample]) -> list[Sample]:
    return [anchor for index, anchor in enumerate(anchors) if index % _JUDGED_EVERY != _JUDGED_EVERY - 1]


def judged(anchors: Sequence[Sample]) -> list[Sample]:
    """Those that are never learnt."""
    return [anchor for index, anchor in enumerate(anchors) if index % _JUDGED_EVERY == _JUDGED_EVERY - 1]


def draw(anchors: Sequence[Sample], num_samples: int, *, seed: int, version: int, step: int = 0) -> list[Sample]:
    """Of those that are learnt, without replacement: a function of (seed, version, step)."""
    left = learnt(anchors)
    return [
        left.pop(randbelow(len(left), seed, "anchor", version, step, turn))
        for turn in range(min(num_samples, len(left)))
    ]
