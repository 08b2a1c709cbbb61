"""Whether a model that learns facts goes on heeding what a memory tells it.

    python -m benchmarks.bench_reading [--facts 48] [--set learning.reading_samples=0 ...]

Facts about browsers (S3, ``benchmarks/learning/facts.py``) are taught by the trainer's own code, eight at a time, to a
line that has seen nothing else. Then each is asked as it is, and with the memory that the server would put before it;
and so are 24 others that were never told to the weights, only to the memory. Right is what greedy decoding says to the
letter, by the weights that are served.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from benchmarks.bench_locality import changed
from benchmarks.learning import facts
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=48, choices=range(1, 100 - NUM_OTHERS + 1), metavar="NUMBER")
    parser.add_argument("--model", default=ModelSettings().name)
    parser.add_argument("--dtype", default=ModelSettings().dtype, help="of the base")
    parser.add_argument("--set", nargs="+", default=[], metavar="SECTION.FIELD=VALUE", help="of the trainer, in JSON")
    options = parser.parse_args()
    settings = changed(Settings(), options.set)
    samples = facts.samples(facts.facts(100, 30, 30, seed=0)[0], 0)
    told, others = samples[: options.facts], samples[options.facts :][:NUM_OTHERS]
    base = load_base(with_dtype(ModelSettings(name=options.model, dtype=options.dtype), settings.adapter))
    learner = AdapterLearner(base, settings.adapter, seed=0, max_tokens=settings.learning.max_tokens)
    memory = Remembering()
    memory.put(samples)
    print(f"{base.dtype}; the base reads {num_right(learner, others, memory)} of {len(others)} others")
    schooling = Schooling(learner, settings.curriculum, SystemClock())
    schooling.begin(())
    print("facts  steps  tokens  seconds  known  with the memory  others with the memory")
    for at in range(0, len(told), BATCH_SIZE):
        began = time.perf_counter()
        report = schooling.learn(at // BATCH_SIZE + 1, told[at : at + BATCH_SIZE], ())
        seconds, so_far = time.perf_counter() - began, told[: at + BATCH_SIZE]
        with schooling.served():
            known, read = num_right(learner, so_far), num_right(learner, so_far, memory)
            num_others = num_right(learner, others, memory)
        steps, tokens = (report.lesson.num_steps, report.lesson.num_tokens) if report.lesson else (0, 0)
        print(f"{len(so_far):5}{steps:7}{tokens:8}{seconds:9.0f}{known:7}{read:17}{num_others:24}", flush=True)


if __name__ == "__main__":
    main()
