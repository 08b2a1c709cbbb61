"""Memories that are read, learnt beside facts, so that the model goes on heeding what it is told.

Weights that are taught answers to questions, and nothing else, answer such questions by themselves from then on: after
48 facts SmolLM2-135M read 7 of 24 facts that it had never heard out of a memory before the question, where it had read
23 (``benchmarks/bench_reading.py``). So each step on facts has a question of one of them with the answer of
another, told as the server tells a memory, and asked: right is what was told, whatever the weights say.

Source: Li et al. 2022, Large Language Models with Controllable Working Memory (knowledge-aware fine-tuning),
https://arxiv.org/abs/2211.05110, its counterfactual contexts.
"""

from __future__ import annotations

from collections.abc import Sequence

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.learning.replay import randbelow

TASK = "reading"
MAX_CHARS = 600
"""Of a question with an answer. Longer ones cost more than they teach, and the server cuts them."""


def told(text: str, answer: str) -> tuple[Message, Message]:
    """A memory, as a turn of the conversation that the model has confirmed."""
    return Message("user", f"Remember: {text}"), Message("assistant", answer)


def is_readable(sample: Sample) -> bool:
    """Whether it is a question and what should be known as its answer."""
    roles = [message.role for message in sample.messages[-2:]]
    if not sample.until_known or roles != ["user", "assistant"]:
        return False
    return sum(len(message.content) for message in sample.messages[-2:]) <= MAX_CHARS


def draw(facts: Sequence[Sample], num_samples: int, *, seed: int, version: int, step: int) -> list[Sample]:
    """Readings of those facts that can be read, each of a question and the answer of any of them: a function of (seed,
    version, step)."""
    facts = [fact for fact in facts if is_readable(fact)]
    if not facts:
        return []
    made = []
    for turn in range(num_samples):
        asked = facts[randbelow(len(facts), seed, "reading", version, step, turn)].messages
        answer = facts[randbelow(len(facts), seed, "reading answer", version, step, turn)].messages[-1]
        memory = told(f"{asked[-2].content} {answer.content}", answer.content)
        name = f"{TASK}-{version}-{step}-{turn}"
        messages = (*asked[:-2], *memory, asked[-2], answer)
        made.append(Sample(id=name, event_id=name, event_time=0.0, task=TASK, messages=messages))
    return made


def is_reading(sample: Sample) -> bool:
    """By its id, which no sample of the stream has."""
    return sample.id.startswith(f"{TASK}-")
