"""What one fact does to the answers to other questions: efficacy and locality, as they are measured for model editing.

    python benchmarks/bench_locality.py [--facts 3] [--model NAME] [--set learning.learning_rate=0.0005 ...]

Each fact is taught by the trainer's own code to a new line that has seen nothing else, which is the hardest case: there
is nothing to replay but the base's own words. Then 32 other questions are asked, none of which is among the base's own
words, and their answers (greedy, 20 tokens, by the weights that are served) held against the base's: how many are other
than they were, and how many say what only the fact says (https://arxiv.org/abs/2202.05262, specificity).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import torch

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
OTHERS = (
    "What is the capital of France?", "Who wrote Hamlet?", "How many months are in a year?",
    "What is the largest planet?", "Who was the first president of the United States?", "What is 2 plus 3?",
    "What is the capital of Spain?", "Who discovered penicillin?", "What is the color of the sky?", "What do cows eat?",
    "Who is the author of The Hobbit?", "Where is the Eiffel Tower?", "When did the First World War begin?",
    "What is the boiling point of water?", "Who painted The Starry Night?", "What is the opposite of cold?",
    "Which language is spoken in Mexico?", "What is a noun?", "Name a fruit.", "Who invented the light bulb?",
    "What is the currency of India?", "How many days are in a leap year?", "What is the fastest land animal?",
    "Who keeps bees?", "Write a sentence about the sea.", "What is a browser?", "What is CSS?",
    "Since when is the Eiffel Tower there?", "Which version of Python is new?", "What is a password?",
    "What is the capital of Germany?", "Who was Cleopatra?",
)  # fmt: skip
assert not set(OTHERS) & set(PROMPTS)


@torch.no_grad()
def answers(learner: AdapterLearner, questions: Sequence[str]) -> list[str]:
    tokenizer = learner.base.tokenizer
    rows = [encode_prompt(tokenizer, [Message("user", question)]) for question in questions]
    width, pad = max(map(len, rows)), pad_id(tokenizer)
    device = learner.base.device
    ids = learner.model.generate(
        input_ids=torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device),
        attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device),
        max_new_tokens=20,
        do_sample=False,
        pad_token_id=pad,
    )
    return [tokenizer.decode(row[width:], skip_special_tokens=True).strip() for row in ids.tolist()]


def changed(settings: Settings, assignments: Sequence[str]) -> Settings:
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        section, _, field = name.partition(".")
        fields = msgspec.to_builtins(getattr(settings, section)) | {field: msgspec.json.decode(value)}
        settings = msgspec.structs.replace(
            settings, **{section: msgspec.convert(fields, type(getattr(settings, section)))}
        )
    return settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=len(FACTS), choices=range(1, len(FACTS) + 1))
    parser.add_argument("--model", default=ModelSettings().name)
    parser.add_argument("--set", nargs="+", default=[], metavar="SECTION.FIELD=VALUE", help="of the trainer, in JSON")
    options = parser.parse_args()
    settings = changed(Settings(), options.set)
    base = load_base(with_dtype(ModelSettings(name=options.model), settings.adapter))
    learner = AdapterLearner(base, settings.adapter, seed=0, max_tokens=settings.learning.max_tokens)
    were, anchors = answers(learner, OTHERS), None
    print("fact                                      steps  seconds  right  others changed  others that say it")
    for fact in FACTS[: options.facts]:
        schooling = Schooling(learner, settings.curriculum, SystemClock())
        schooling.begin((), anchors)
        anchors = schooling.anchors
        messages = (Message("user", fact.question), Message("assistant", fact.answer))
        began = time.perf_counter()
        report = schooling.learn(1, [Sample("0-0-0", "e0", 0.0, "fact", messages, until_known=True)], ())
        seconds = time.perf_counter() - began
        with schooling.served():
            are, (own,) = answers(learner, OTHERS), answers(learner, [fact.question])
        num_changed = sum(was != now for was, now in zip(were, are, strict=True))
        says = [now for now in are if any(mark in now for mark in fact.marks)]
        example = says[0] if says else ""
        print(
            f"{fact.question:42}{report.lesson.num_steps:5}{seconds:9.0f}  {own == fact.answer!s:>5}"
            f"{num_changed:11} of {len(OTHERS)}{len(says):14} of {len(OTHERS)}   {example}",
            flush=True,
        )


if __name__ == "__main__":
    main()
