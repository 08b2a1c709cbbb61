"""What a strategy costs beside plain learning: seconds of processor, in one process, a micro-batch of each in turn.

    python -m benchmarks.bench_cost [--strategies naive default] [--micro-batches 50] [--dtype bfloat16]

Each learns the same micro-batches of S1 (``benchmarks/learning``) by the trainer's own code, judging included. In turn,
so that whatever else the machine does meanwhile does it to all of them. What a line takes to begin is shown apart: it
is paid once. The quotient is of all that a strategy takes and the steps of the first.
"""

from __future__ import annotations

import argparse
import time

import torch
from benchmarks.learning.run import BATCH_SIZE
from benchmarks.learning.strategies import strategy_of
from benchmarks.learning.streams import FULL, STREAMS

from lifelong.model.base import load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.runtime.clock import SystemClock
from lifelong.trainer.precision import with_dtype
from lifelong.trainer.schooling import Schooling


class ProcessorClock(SystemClock):
    """Durations are those of the processor."""

    def monotonic(self) -> float:
        return time.process_time()


class Pupil:
    def __init__(self, name: str, model: ModelSettings, seed: int) -> None:
        self.name = name
        curriculum = strategy_of(name).with_seed(seed)
        learner = AdapterLearner(
            load_base(model), AdapterSettings(), seed=seed, max_tokens=curriculum.learning.max_tokens
        )
        self.schooling = Schooling(learner, curriculum, ProcessorClock())
        self.seconds = self.step_seconds = self.gate_seconds = 0.0
        self.num_steps = self.num_tokens = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="+", default=["naive", "default"], metavar="STRATEGY")
    parser.add_argument("--micro-batches", type=int, default=0, help="of S1, from the first; 0: all, 125")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default=ModelSettings().dtype)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = with_dtype(ModelSettings(dtype=options.dtype), AdapterSettings())
    stream = STREAMS["S1"](FULL, options.seed)
    pupils, anchors = [Pupil(name, model, options.seed) for name in options.strategies], None
    for pupil in pupils:
        began = time.process_time()
        pupil.schooling.begin((), anchors)
        print(f"{pupil.name}: {time.process_time() - began:.0f} s to begin", flush=True)
        anchors = pupil.schooling.anchors  # the base is asked by the first alone

    batches = [
        phase.samples[at : at + BATCH_SIZE]
        for phase in stream.phases
        for at in range(0, len(phase.samples), BATCH_SIZE)
    ]
    batches = batches[: options.micro_batches or len(batches)]
    for number, batch in enumerate(batches, 1):
        for pupil in pupils:
            began = time.process_time()
            report = pupil.schooling.learn(number, batch, ())
            pupil.seconds += time.process_time() - began
            pupil.step_seconds += report.step_seconds
            pupil.gate_seconds += report.gate_seconds
            if report.lesson:
                pupil.num_steps += report.lesson.num_steps
                pupil.num_tokens += report.lesson.num_tokens
        if number % 25 == 0 or number == len(batches):
            print(f"{'after ' + str(number):32} steps  tokens  seconds  of them steps  the gate  of the first's steps")
            for pupil in pupils:
                quotient = pupil.seconds / pupils[0].step_seconds
                print(
                    f"{pupil.name:32}{pupil.num_steps:6}{pupil.num_tokens:8}{pupil.seconds:9.0f}"
                    f"{pupil.step_seconds:15.0f}{pupil.gate_seconds:10.0f}{quotient:23.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
