"""Whether a model that learns goes on heeding what a memory tells it.

    python -m benchmarks.bench_reading [--learns facts|documents|labels] [--set learning.reading_samples=0 ...]

Facts about browsers (S3), passages (S2) or labelled texts (S1; all of ``benchmarks/learning``) are taught by the
trainer's own code, eight at a time, to a line that has seen nothing else. Before and after, the questions of
``bench_recall.py`` are asked, with corrections and with documents before them, as the server tells them: those of
everyday life have nothing to do with what was learnt, those about browsers ask as its facts do, of others. Right is an
answer that has what only the memory says.

Facts are asked besides, each as it is and with its memory; and so are 24 others that were told to the memory alone.
Right is what greedy decoding says to the letter. All by the weights that are served.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from benchmarks.assignments import changed
from benchmarks.bench_locality import answers
from benchmarks.bench_recall import WAYS, cases
from benchmarks.learning import domains, facts, tasks
from benchmarks.learning.remembering import Remembering

from lifelong.contracts.samples import Sample
from lifelong.learning.losses import are_first_choices
from lifelong.model.base import load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import ModelSettings
from lifelong.runtime.clock import SystemClock
from lifelong.trainer.config import Settings
from lifelong.trainer.precision import with_dtype
from lifelong.trainer.schooling import Schooling

BATCH_SIZE = 8
NUM_OTHERS = 24


def num_right(learner: AdapterLearner, samples: Sequence[Sample], memory: Remembering | None = None) -> int:
    asked = [memory.with_memories(sample) for sample in samples] if memory else samples
    return sum(are_first_choices(learner.logits([sample]), 1)[0] for sample in asked)


def num_recalled(learner: AdapterLearner, kind: str) -> str:
    """``kind``: of the memory, a correction or a document."""
    (way,) = [way for name, way in WAYS.items() if name.startswith(f"{kind}, told and confirmed")]
    asked = cases(16)
    said = answers(learner, [way(case) for case in asked], max_tokens=32)
    found = []
    for is_everyday, what in ((True, "of everyday life"), (False, "about browsers")):
        right = [c.is_in(answer) for c, answer in zip(asked, said, strict=True) if c.is_everyday == is_everyday]
        found.append(f"{sum(right)} of {len(right)} {what}")
    return f"out of a {kind} {' and '.join(found)}"


def stream(learns: str, number: int) -> list[Sample]:
    """So many, as evenly as can be of each domain or task."""
    if learns == "documents":
        found = domains.domains(-(-number // 6), 1, seed=0)
    else:
        found = tasks.tasks(-(-number // 5), 1, seed=0)
    return [sample for each in found for sample in each.train][:number]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learns", choices=("facts", "documents", "labels"), default="facts")
    parser.add_argument("--number", type=int, help="48 facts, of at most 76; 240 others")
    parser.add_argument("--model", default=ModelSettings().name)
    parser.add_argument("--dtype", default=ModelSettings().dtype, help="of the base")
    parser.add_argument("--set", nargs="+", default=[], metavar="SECTION.FIELD=VALUE", help="of the trainer, in JSON")
    options = parser.parse_args()
    settings, are_facts = changed(Settings(), options.set), options.learns == "facts"
    number = options.number if options.number is not None else 48 if are_facts else 240
    samples = facts.samples(facts.facts(100, 30, 30, seed=0)[0], 0)
    if number < 1 or (are_facts and number > len(samples) - NUM_OTHERS):
        parser.error(f"--number must be from 1 to {len(samples) - NUM_OTHERS} of facts, and at least 1 of others")
    told = samples[:number] if are_facts else stream(options.learns, number)
    others = samples[number:][:NUM_OTHERS] if are_facts else []
    base = load_base(with_dtype(ModelSettings(name=options.model, dtype=options.dtype), settings.adapter))
    learner = AdapterLearner(base, settings.adapter, seed=0, max_tokens=settings.learning.max_tokens)
    memory = Remembering()
    memory.put(samples)
    print(f"{base.dtype}; before: {num_recalled(learner, 'correction')}; {num_recalled(learner, 'document')}")
    schooling = Schooling(learner, settings.curriculum, SystemClock())
    schooling.begin(())
    if are_facts:
        print(f"the base reads {num_right(learner, others, memory)} of {len(others)} other facts")
        print("facts  steps  tokens  seconds  known  with the memory  others with the memory")
    for at in range(0, len(told), BATCH_SIZE):
        began = time.perf_counter()
        report = schooling.learn(at // BATCH_SIZE + 1, told[at : at + BATCH_SIZE], ())
        seconds, so_far = time.perf_counter() - began, told[: at + BATCH_SIZE]
        if not are_facts:
            continue
        with schooling.served():
            known, read = num_right(learner, so_far), num_right(learner, so_far, memory)
            num_others = num_right(learner, others, memory)
        steps, tokens = (report.lesson.num_steps, report.lesson.num_tokens) if report.lesson else (0, 0)
        print(f"{len(so_far):5}{steps:7}{tokens:8}{seconds:9.0f}{known:7}{read:17}{num_others:24}", flush=True)
    with schooling.served():
        after = [num_recalled(learner, kind) for kind in ("correction", "document")]
    print(f"after {len(told)} {options.learns}: {'; '.join(after)}")


if __name__ == "__main__":
    main()
