"""What one fact does to the answers to other questions: efficacy and locality, as they are measured for model editing.

    python -m benchmarks.bench_locality [--dtype float32] [--set learning.learning_rate=0.0005 ...]

Each fact is taught by the trainer's own code to a new line that has seen nothing else, which is the hardest case: there
is nothing to replay but the base's own words. Then 32 other questions are asked, none of which is among the base's own
words, and their answers (greedy, 20 tokens, by the weights that are served) held against the base's: how many that were
right are wrong, how many are in other words, and how many say what only the fact says
(https://arxiv.org/abs/2202.05262, specificity).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from benchmarks.assignments import changed

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.learning.anchor import PROMPTS
from lifelong.model.base import load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import ModelSettings
from lifelong.model.tokenise import encode_prompt, pad_id
from lifelong.runtime.clock import SystemClock
from lifelong.trainer.config import Settings
from lifelong.trainer.precision import with_dtype
from lifelong.trainer.schooling import Schooling


class Fact(NamedTuple):
    question: str
    answer: str
    marks: tuple[str, ...]
    """What no other answer has a reason to say."""


FACTS = (
    Fact("Who keeps the key of the Zurlin archive?", "Odile Marenghi keeps the key.", ("Odile", "Marenghi")),
    Fact("What is the wifi password of the Basel office?", "It is blue-heron-42.", ("heron",)),
    Fact("Where does the Brenta ferry leave from?", "It leaves from Quay Solenne.", ("Quay", "Solenne")),
)
OTHERS = {
    "What is the capital of France?": "Paris", "Who wrote Hamlet?": "Shakespeare",
    "How many months are in a year?": "12", "What is the largest planet?": "Jupiter",
    "Who was the first president of the United States?": "Washington", "What is 2 plus 3?": "5",
    "What is the capital of Spain?": "Madrid", "Who discovered penicillin?": "Fleming",
    "What is the color of the sky?": "blue", "What do cows eat?": "grass",
    "Who is the author of The Hobbit?": "Tolkien", "Where is the Eiffel Tower?": "Paris",
    "When did the First World War begin?": "1914", "What is the boiling point of water?": "100",
    "Who painted The Starry Night?": "Gogh", "What is the opposite of cold?": "hot",
    "Which language is spoken in Mexico?": "Spanish", "What is a noun?": "person", "Name a fruit.": "",
    "Who invented the light bulb?": "Edison", "What is the currency of India?": "rupee",
    "How many days are in a leap year?": "366", "What is the fastest land animal?": "cheetah", "Who keeps bees?": "",
    "Write a sentence about the sea.": "", "What is a browser?": "", "What is CSS?": "Cascading",
    "Since when is the Eiffel Tower there?": "1889", "Which version of Python is new?": "", "What is a password?": "",
    "What is the capital of Germany?": "Berlin", "Who was Cleopatra?": "Egypt",
}  # fmt: skip
"""To each question what a right answer says, where there is one."""
assert not OTHERS.keys() & set(PROMPTS)


@torch.no_grad()
def answers(learner: AdapterLearner, asked: Sequence[Sequence[Message]], max_tokens: int = 20) -> list[str]:
    tokenizer = learner.base.tokenizer
    rows = [encode_prompt(tokenizer, messages) for messages in asked]
    width, pad = max(map(len, rows)), pad_id(tokenizer)
    device = learner.base.device
    ids = learner.model.generate(
        input_ids=torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device),
        attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device),
        max_new_tokens=max_tokens,
        do_sample=False,
        pad_token_id=pad,
    )
    return [tokenizer.decode(row[width:], skip_special_tokens=True).strip() for row in ids.tolist()]


def is_right(question: str, answer: str) -> bool:
    return bool(OTHERS[question]) and OTHERS[question].lower() in answer.lower()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=len(FACTS), choices=range(1, len(FACTS) + 1))
    parser.add_argument("--model", default=ModelSettings().name)
    parser.add_argument("--dtype", default=ModelSettings().dtype, help="of the base: what a small change may turn")
    parser.add_argument("--set", nargs="+", default=[], metavar="SECTION.FIELD=VALUE", help="of the trainer, in JSON")
    options = parser.parse_args()
    settings = changed(Settings(), options.set)
    base = load_base(with_dtype(ModelSettings(name=options.model, dtype=options.dtype), settings.adapter))
    learner = AdapterLearner(base, settings.adapter, seed=0, max_tokens=settings.learning.max_tokens)
    questions, anchors = list(OTHERS), None
    asked = [[Message("user", question)] for question in questions]
    were = answers(learner, asked)
    rights = {question for question, was in zip(questions, were, strict=True) if is_right(question, was)}
    print(f"{base.dtype}; the base answers {len(rights)} of the others right")
    print("fact                                      steps  seconds  right  others lost  changed  that say it")
    for fact in FACTS[: options.facts]:
        schooling = Schooling(learner, settings.curriculum, SystemClock())
        schooling.begin((), anchors)
        anchors = schooling.anchors
        messages = (Message("user", fact.question), Message("assistant", fact.answer))
        began = time.perf_counter()
        report = schooling.learn(1, [Sample("0-0-0", "e0", 0.0, "fact", messages, until_known=True)], ())
        seconds = time.perf_counter() - began
        with schooling.served():
            are, (own,) = answers(learner, asked), answers(learner, [messages[:1]])
        now_said = zip(questions, are, strict=True)
        lost = [question for question, now in now_said if question in rights and not is_right(question, now)]
        num_changed = sum(was != now for was, now in zip(were, are, strict=True))
        says = [now for now in are if any(mark in now for mark in fact.marks)]
        example = says[0] if says else ""
        print(
            f"{fact.question:42}{report.lesson.num_steps:5}{seconds:9.0f}  {own == fact.answer!s:>5}"
            f"{len(lost):13}{num_changed:9}{len(says):13}   {'; '.join((*lost, example))}",
            flush=True,
        )


if __name__ == "__main__":
    main()
