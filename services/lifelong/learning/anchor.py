"""What the base already says, said again: its own answers to general prompts, mixed into every micro-batch.

On-policy replay (https://arxiv.org/abs/2605.29495): being samples of the model itself they cost hardly any gradient
while nothing is forgotten, and pull back when something is. A part of them is never learnt and shows the gate what has
become of general text. The set is made once, by the base, when a line begins, and is part of the line's state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.learning.replay import randbelow

TASK = "anchor"
PROMPTS = (
    "Explain photosynthesis in two sentences.",
    "Write a short, polite email asking for a day off.",
    "What is the capital of Italy?",
    "Give three tips for better sleep.",
    "Summarize the story of Cinderella in two sentences.",
    "What is the difference between a list and a tuple in Python?",
    "Translate 'good morning' into French.",
    "How many days are in a leap year?",
    "Describe a sunset in one sentence.",
    "What does a doctor do?",
    "Name three kinds of fruit.",
    "Why is the sky blue?",
    "Write a two-line poem about rain.",
    "How do I boil an egg?",
    "What is 12 plus 30?",
    "Who wrote Romeo and Juliet?",
    "What is a good way to learn a new language?",
    "Explain what a computer is to a child.",
)
_JUDGED_EVERY = 3


def make_anchors(answers: Callable[[Sequence[str]], Sequence[str]], prompts: Sequence[str] = PROMPTS) -> list[Sample]:
    """One anchor for each prompt to which the base has an answer. ``answers`` asks the base, all prompts at once."""
    return [
        Sample(
            id=f"{TASK}-{index}",
            event_id=f"{TASK}-{index}",
            event_time=0.0,
            task=TASK,
            messages=(Message("user", prompt), Message("assistant", answer)),
        )
        for index, (prompt, answer) in enumerate(zip(prompts, answers(prompts), strict=True))
        if answer.strip()
    ]


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
