"""Which way of putting memories before the model makes it answer from them.

    python benchmarks/bench_recall.py [--facts 16] [--model NAME]

Facts that the base model cannot know: twelve of everyday life, asked as they were told and in other words, and some
of the demo's, which are about browsers. Each is given in each way, alone and beside two memories that answer something
else; counted is how often the answer has what only the memory says: of "Firefox 128" that is the number. The
server's own way is what ``lifelong.inference.recall`` does.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lifelong.contracts.events import Message
from lifelong.demo.facts import choose
from lifelong.model.base import load_base
from lifelong.model.batching_engine import BatchingEngine
from lifelong.model.sampling import SamplingParams
from lifelong.model.settings import AdapterSettings, EngineSettings, ModelSettings
from lifelong.model.tokenise import encode_prompt


class Memory(NamedTuple):
    question: str
    answer: str
    text: str


class Case(NamedTuple):
    """``memories``: the best last, nearest to the question."""

    memories: Sequence[Memory]
    question: str
    wanted: str
    is_everyday: bool

    def is_in(self, answer: str) -> bool:
        """As a word or a number of its own: 17 is not in 17.4."""
        return bool(re.search(rf"(?<![\w.]){re.escape(self.wanted)}(?!\w|\.\d)", answer, re.IGNORECASE))


Way = Callable[[Case], list[Message]]


def turns(case: Case, ask: Callable[[Memory], str], say: Callable[[Memory], str]) -> list[Message]:
    told = [Message(role, f(m)) for m in case.memories for role, f in (("user", ask), ("assistant", say))]
    return [*told, Message("user", case.question)]


def note(case: Case, line: Callable[[Memory], str]) -> list[Message]:
    lines = "\n".join(f"- {line(memory)}" for memory in case.memories)
    return [
        Message("system", f"Use these notes if they help to answer:\n{lines}"),
        Message("user", case.question),
    ]


def in_question(case: Case, line: Callable[[Memory], str]) -> list[Message]:
    lines = "\n".join(line(memory) for memory in case.memories)
    return [Message("user", f"{lines}\n\n{case.question}")]


def pair(memory: Memory) -> str:
    return f"{memory.question} {memory.answer}"


WAYS: dict[str, Way] = {
    "correction, told and confirmed (the server's)": lambda c: turns(
        c, lambda m: f"Remember: {pair(m)}", lambda m: m.answer
    ),
    "correction, as an earlier turn": lambda c: turns(c, lambda m: m.question, lambda m: m.answer),
    "correction, as a system note": lambda c: note(c, pair),
    "correction, in the question": lambda c: in_question(c, pair),
    "document, told and confirmed (the server's)": lambda c: turns(
        c, lambda m: f"Remember: {m.text}", lambda m: m.text
    ),
    "document, as an earlier answer": lambda c: turns(
        c, lambda m: f"What do you know about this? {c.question}", lambda m: m.text
    ),
    "document, as a system note": lambda c: note(c, lambda m: m.text),
    "document, in the question": lambda c: in_question(c, lambda m: m.text),
}

# Question, answer, the question in other words, what the right answer has in it, the same as a text.
EVERYDAY = [
    (
        "Where is the spare key of the office?",
        "Under the blue flowerpot.",
        "Do you know where the office's spare key is kept?",
        "flowerpot",
        "The spare key of the office is kept under the blue flowerpot at the back door.",
    ),
    (
        "What is the wifi password for guests?",
        "It is tangerine-47.",
        "How do visitors get on the wifi, what is the password?",
        "tangerine",
        "Guests use the wifi with the password tangerine-47, which changes every March.",
    ),
    (
        "Who leads the payments team?",
        "Marta Vesely leads it.",
        "Which person is the head of the payments team?",
        "vesely",
        "Since spring the payments team has been led by Marta Vesely, who came from logistics.",
    ),
    (
        "What is the capital of the state of Zubrovia?",
        "Lutz is the capital.",
        "Zubrovia's capital is which city?",
        "lutz",
        "Zubrovia is a small state in the mountains; its capital is Lutz.",
    ),
    (
        "When does the canteen close on Fridays?",
        "At 14:30.",
        "Until what time can I eat in the canteen on a Friday?",
        "14:30",
        "The canteen is open from 11:00 and closes at 14:30 on Fridays.",
    ),
    (
        "Which port does the staging database use?",
        "Port 6543.",
        "On which port do I find the database in staging?",
        "6543",
        "The staging database listens on port 6543, production on 5432.",
    ),
    (
        "What is the name of our mascot?",
        "Our mascot is Pippin the otter.",
        "What do we call the company mascot?",
        "pippin",
        "The company's mascot is an otter that goes by the name of Pippin.",
    ),
    (
        "How many days of vacation do new employees get?",
        "27 days.",
        "I have just joined, how much vacation do I have?",
        "27",
        "New employees have 27 days of vacation a year, and 30 after five years.",
    ),
    (
        "Who wrote the novel The Glass Orchard?",
        "Ines Halloran wrote it.",
        "The Glass Orchard is a novel by whom?",
        "halloran",
        "The Glass Orchard is the second novel of Ines Halloran and won a prize in 2024.",
    ),
    (
        "What is the maximum upload size of the portal?",
        "It is 250 MB.",
        "How large a file may I upload to the portal?",
        "250",
        "Files of up to 250 MB can be uploaded to the portal.",
    ),
    (
        "Which train goes to Tarnhill?",
        "The S7 goes to Tarnhill.",
        "How do I get to Tarnhill by train?",
        "s7",
        "Tarnhill is the last stop of the S7, which runs every twenty minutes.",
    ),
    (
        "What colour is the emergency binder?",
        "It is orange.",
        "I am looking for the emergency binder, what colour does it have?",
        "orange",
        "The emergency binder is orange and stands on the shelf beside the printer.",
    ),
]


def cases(num_facts: int) -> list[Case]:
    everyday = [Memory(question, answer, text) for question, answer, _, _, text in EVERYDAY]
    of_demo = choose(num_facts, seed=3)
    demo = [Memory(fact.question, fact.answer, fact.text) for fact in of_demo]
    found = []
    for others in (0, 2):
        for index, (question, _, other_words, wanted, _) in enumerate(EVERYDAY):
            memories = [*(everyday[(index + 3 * n + 1) % len(everyday)] for n in range(others)), everyday[index]]
            found += [Case(memories, asked, wanted, is_everyday=True) for asked in (question, other_words)]
        for index, fact in enumerate(of_demo):
            memories = [*(demo[(index + n + 1) % len(demo)] for n in range(others)), demo[index]]
            wanted = fact.answer.rstrip(".").split()[-1]
            found.append(Case(memories, fact.question, wanted, is_everyday=False))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--facts", type=int, default=16)
    arguments.add_argument("--model", default=ModelSettings().name)
    options = arguments.parse_args()
    base = load_base(ModelSettings(name=options.model))
    engine = BatchingEngine(base, AdapterSettings(), EngineSettings(max_requests=1000))
    generation = engine.load("base@0", None)
    asked = cases(options.facts)
    for name, way in WAYS.items():
        prompts = [encode_prompt(base.tokenizer, way(case)) for case in asked]
        running = [engine.submit(generation, prompt, SamplingParams(max_tokens=32)) for prompt in prompts]
        right = sum(case.is_in(answer.result().text) for case, answer in zip(asked, running, strict=True))
        print(f"{right:3} of {len(asked)}  {name}", flush=True)
    engine.close()


if __name__ == "__main__":
    main()
