"""Which way of putting a memory before the model makes it answer from it.

    python benchmarks/bench_recall.py [--facts 20] [--model NAME]

Each fact of the demo is given to the base model, which cannot know it, in each way; counted is how often the answer
names the right version. The server's own way is what ``lifelong.inference.recall`` does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from lifelong.contracts.events import Message
from lifelong.demo.facts import BrowserFact, choose
from lifelong.model.base import BaseModel, load_base
from lifelong.model.settings import ModelSettings
from lifelong.model.tokenise import encode_prompt

Way = Callable[[BrowserFact], list[Message]]

WAYS: dict[str, Way] = {
    "correction, as a system note": lambda f: [
        Message("system", f"Use these notes if they help to answer:\n- {f.question} {f.answer}"),
        Message("user", f.question),
    ],
    "correction, as an earlier turn": lambda f: [
        Message("user", f.question),
        Message("assistant", f.answer),
        Message("user", f.question),
    ],
    "correction, told and confirmed (the server's)": lambda f: [
        Message("user", f"Remember: {f.question} {f.answer}"),
        Message("assistant", f.answer),
        Message("user", f.question),
    ],
    "document, as a system note": lambda f: [
        Message("system", f"Use these notes if they help to answer:\n- {f.text}"),
        Message("user", f.question),
    ],
    "document, as an earlier answer (the server's)": lambda f: [
        Message("user", f"What do you know about this? {f.question}"),
        Message("assistant", f.text),
        Message("user", f.question),
    ],
}


def answer(base: BaseModel, messages: list[Message]) -> str:
    ids = torch.tensor([encode_prompt(base.tokenizer, messages)])
    with torch.no_grad():
        out = base.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
        )
    text: str = base.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return text


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--facts", type=int, default=20)
    arguments.add_argument("--model", default=ModelSettings().name)
    options = arguments.parse_args()
    base = load_base(ModelSettings(name=options.model))
    facts = choose(options.facts, seed=3)
    for name, way in WAYS.items():
        right = sum(fact.is_told_by(answer(base, way(fact))) for fact in facts)
        print(f"{right:3} of {len(facts)}  {name}", flush=True)


if __name__ == "__main__":
    main()
