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
    "What is the capital of Egypt?",
    "What is the capital of Canada?",
    "What is the capital of Australia?",
    "What is the capital of Russia?",
    "Who wrote Don Quixote?",
    "Who wrote The Odyssey?",
    "Who wrote Pride and Prejudice?",
    "Who painted Guernica?",
    "Who painted The Last Supper?",
    "Who discovered America?",
    "Who discovered gravity?",
    "Who developed the theory of relativity?",
    "Who composed the Moonlight Sonata?",
    "Who was Napoleon?",
    "Who was the first woman to win a Nobel Prize?",
    "Who built the pyramids?",
    "Who founded Microsoft?",
    "Who repairs shoes?",
    "Who looks after sheep?",
    "Who teaches at a school?",
    "Where is the Great Wall?",
    "Where do penguins live?",
    "Where is the Colosseum?",
    "Where does coffee come from?",
    "Where is the Amazon rainforest?",
    "Where do birds build nests?",
    "When did the Berlin Wall fall?",
    "When is Christmas?",
    "When was the Declaration of Independence signed?",
    "When do leaves fall?",
    "How many hours are in a day?",
    "How many continents are there?",
    "How many players are on a soccer team?",
    "How many sides does a triangle have?",
    "How many minutes are in an hour?",
    "What is 9 minus 4?",
    "What is 3 times 3?",
    "What is half of ten?",
    "What is the square root of 16?",
    "What comes after Monday?",
    "What is the smallest planet?",
    "What is the longest river in the world?",
    "What is the largest animal?",
    "What is the largest desert in the world?",
    "What is the freezing point of water?",
    "What is the color of grass?",
    "What is the color of blood?",
    "What do lions eat?",
    "What do hens lay?",
    "What is the opposite of big?",
    "What is the opposite of day?",
    "What is the past tense of go?",
    "What is the currency of the United Kingdom?",
    "What is the chemical formula of water?",
    "What is the speed of light?",
    "What is a verb?",
    "What is an adjective?",
    "What is a database?",
    "What is a hammer used for?",
    "What is a bridge?",
    "What is a dictionary?",
    "What is JavaScript?",
    "What is an operating system?",
    "What is photosynthesis?",
    "Which language is spoken in Germany?",
    "Which animal barks?",
    "Which metal is liquid at room temperature?",
    "Which sea is salty enough to float in?",
    "Which month has 28 days?",
    "Which version of Windows came after XP?",
    "Name an animal.",
    "Name a country in Africa.",
)
BEGINNINGS = (
    "The", "In", "It", "When", "There", "He", "She", "After", "A", "For", "This", "As", "Most", "Many", "I", "We",
    "Although", "One", "At", "To", "If", "They", "During", "On", "My", "According", "What", "You", "With", "However",
    "Some", "By", "How", "His", "Because", "Its",
)  # fmt: skip
"""Of text: from there on the base writes what it likes."""
_NUM_JUDGED = 12
"""Of the answers, and of the texts; of few a third."""

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
    never = {anchor.id for anchor in judged(anchors)}
    return [anchor for anchor in anchors if anchor.id not in never]


def judged(anchors: Sequence[Sample]) -> list[Sample]:
    """Those that are never learnt."""
    answers, texts = _kinds(anchors)
    return [kind[at] for kind in (answers, texts) for at in range(2, len(kind), max(3, len(kind) // _NUM_JUDGED))]


def draw(anchors: Sequence[Sample], num_samples: int, *, seed: int, version: int, step: int = 0) -> list[Sample]:
    """Of those that are learnt, without replacement, an answer and a text in turn, as long as there are some of both: a
    function of (seed, version, step)."""
    kinds = _kinds(learnt(anchors))
    first = randbelow(2, seed, "anchor", version, step, "kind")
    drawn = []
    for turn in range(min(num_samples, sum(map(len, kinds)))):
        left = kinds[(first + turn) % 2] or kinds[(first + turn + 1) % 2]
        drawn.append(left.pop(randbelow(len(left), seed, "anchor", version, step, turn)))
    return drawn


def _kinds(anchors: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    return [a for a in anchors if a.messages], [a for a in anchors if not a.messages]
