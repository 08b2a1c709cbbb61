"""One strategy learns one stream from one seed, and is examined as it goes."""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
import transformers
from benchmarks.learning.blind import Blind
from benchmarks.learning.exams import Exam, Shares, nats
from benchmarks.learning.remembering import Remembering
from benchmarks.learning.strategies import Strategy
from benchmarks.learning.tasks import POISON

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner
from lifelong.model.base import load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.runtime.clock import SystemClock
from lifelong.trainer.schooling import Schooling

BATCH_SIZE = 8


class Phase(NamedTuple):
    """A stretch of the stream; afterwards there is an examination."""

    name: str
    samples: Sequence[Sample]


class Stream(NamedTuple):
    name: str
    phases: Sequence[Phase]
    tests: dict[str, Sequence[Sample]]
    """By task, in the order in which the tasks first come."""
    general: Sequence[Sample]
    """Text that has nothing to do with the stream."""
    exam: Callable[[Learner], Exam]


class Progress(msgspec.Struct, frozen=True):
    """Of one micro-batch."""

    num_samples: int
    tasks: tuple[str, ...]
    measures: dict[str, tuple[float, float]]
    """Before it was learnt, by the weights that are served: sum and weight of each measure."""
    num_steps: int
    is_accepted: bool
    at_once: dict[str, tuple[float, float]] = {}
    """The same right after it was learnt, where the samples are such that should be known then."""
    refused: tuple[str, ...] = ()
    """Ids of the samples that the gate names."""


class Examination(msgspec.Struct, frozen=True):
    after: str
    """The phase; empty: before anything was learnt."""
    served: dict[str, dict[str, float]]
    """Task → measure → value."""
    learning: dict[str, dict[str, float]] | None
    """Of the weights that learn, where others are served."""
    general_nats: float
    """Per token, of the served weights."""


class Result(msgspec.Struct, frozen=True):
    stream: str
    strategy: str
    seed: int
    settings: dict[str, object]
    machine: dict[str, str]
    examinations: tuple[Examination, ...]
    progress: tuple[Progress, ...]
    base_kl_nats: float | None
    """Mean of KL(base ‖ model) on new samples right after they were learnt, over the stream."""
    num_tokens: int
    """That were learnt from, old ones and prompts included."""
    cpu_seconds: float
    """Of learning and judging, without the examinations."""
    step_seconds: float
    """On the clock, of the steps alone."""
    wall_seconds: float
    """On the clock, of learning and judging."""
    commit: str = ""
    """Of the code that learnt; with a ``+`` where it was changed since. Empty: not known."""


def settings_of(stream: Stream, strategy: Strategy, seed: int, model: ModelSettings) -> dict[str, object]:
    """All that a result depends on, but for the data themselves."""
    samples = [sample.id for phase in stream.phases for sample in phase.samples]
    tests = {task: len(found) for task, found in stream.tests.items()}
    found = {
        "model": model,
        "adapter": AdapterSettings(),
        "curriculum": strategy.with_seed(seed)._asdict(),
        "epochs": strategy.epochs,
        "is_joint": strategy.is_joint,
        "learns": strategy.learns,
        "remembers": strategy.remembers,
        "num_samples": len(samples) * strategy.epochs,
        "num_tests": tests,
        "num_general": len(stream.general),
    }
    if num_poisoned := sum(name.startswith(POISON) for name in samples):
        found["num_poisoned"] = num_poisoned
    if strategy.guesses_by:
        found["guesses_by"] = strategy.guesses_by
    if strategy.avalanche:
        found["avalanche"] = strategy.avalanche
    return msgspec.json.decode(msgspec.json.encode(found), type=dict[str, object])


def run(
    stream: Stream,
    name: str,
    strategy: Strategy,
    seed: int,
    model: ModelSettings,
    anchors: Sequence[Sample],
    tell: Callable[[str], None] = lambda what: None,
) -> Result:
    """
    Args:
        anchors: the base's own answers and texts; to ask for them takes longer than many a run.
    """
    curriculum = strategy.with_seed(seed)
    base = load_base(model)
    learner = AdapterLearner(base, AdapterSettings(), seed=seed, max_tokens=curriculum.learning.max_tokens)
    schooling = Schooling(learner, curriculum, SystemClock())
    schooling.begin((), anchors)
    exam = stream.exam(learner)
    memory: Remembering | Blind | None = Remembering() if strategy.remembers else None
    if strategy.guesses_by:
        memory = Blind(strategy.guesses_by)
    if memory:
        exam = memory.exam(exam)
    examiner = Examiner(stream, exam, learner, schooling.served, has_slow=curriculum.recipe.ema_decay > 0)
    phases = _joint(stream, strategy.epochs, seed) if strategy.is_joint else stream.phases

    def at_once(batch: Sequence[Sample]) -> dict[str, tuple[float, float]]:
        to_know = [sample for sample in batch if sample.until_known]
        with schooling.served():
            return _pairs(exam(learner, to_know)) if to_know else {}

    examinations = [examiner.examine("", list(stream.tests))]
    progress: list[Progress] = []
    kls: list[float] = []
    cpu = wall = step = 0.0
    num_tokens = version = 0
    seen: set[str] = set()
    for phase in phases:
        for at in range(0, len(phase.samples), BATCH_SIZE):
            batch = phase.samples[at : at + BATCH_SIZE]
            with schooling.served():
                measures = exam(learner, batch)
            tasks = tuple(sorted({sample.task for sample in batch}))
            seen.update(tasks)
            if memory:
                memory.put(batch)
            if not strategy.learns:
                progress.append(Progress(len(batch), tasks, _pairs(measures), 0, True, at_once(batch)))
                continue
            started_cpu, started = time.process_time(), time.perf_counter()
            version += 1
            report = schooling.learn(version, batch, ())
            cpu, wall = cpu + time.process_time() - started_cpu, wall + time.perf_counter() - started
            step += report.step_seconds
            if report.base_kl is not None:
                kls.append(report.base_kl)
            steps = report.lesson.num_steps if report.lesson else 0
            num_tokens += report.lesson.num_tokens if report.lesson else 0
            accepted = report.verdict.accepted
            refused = tuple(sample.id for part in report.refused for sample in part.samples)
            progress.append(Progress(len(batch), tasks, _pairs(measures), steps, accepted, at_once(batch), refused))
            tell(f"{phase.name} {at + len(batch)}/{len(phase.samples)}")
        examinations.append(examiner.examine(phase.name, known_and_next(stream, seen)))
    return Result(
        stream.name,
        name,
        seed,
        settings_of(stream, strategy, seed, model),
        machine(),
        tuple(examinations),
        tuple(progress),
        sum(kls) / len(kls) if kls else None,
        num_tokens,
        cpu,
        step,
        wall,
    )


class Examiner:
    def __init__(
        self,
        stream: Stream,
        exam: Exam,
        learner: Learner,
        served: Callable[[], AbstractContextManager[None]],
        *,
        has_slow: bool,
    ) -> None:
        """``served``: inside, the learner has the weights that are served."""
        self._stream, self._exam, self._learner, self._served = stream, exam, learner, served
        self._has_slow = has_slow

    def examine(self, after: str, tasks: Sequence[str]) -> Examination:
        with self._served():
            served = self._scores(tasks)
            general = nats(self._learner, self._stream.general)
        return Examination(after, served, self._scores(tasks) if self._has_slow else None, general)

    def _scores(self, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
        return {task: _means(self._exam(self._learner, self._stream.tests[task])) for task in tasks}


def _pairs(shares: Shares) -> dict[str, tuple[float, float]]:
    return {name: (share.total, share.weight) for name, share in shares.items()}


def _means(shares: Shares) -> dict[str, float]:
    return {name: share.mean for name, share in shares.items()}


def known_and_next(stream: Stream, seen: set[str]) -> list[str]:
    """The next task says what the earlier ones were good for; those after it say nothing more. What is asked otherwise
    than it was learnt is asked always."""
    tasks = list(stream.tests)
    learnt = {sample.task for phase in stream.phases for sample in phase.samples}
    return [task for task in tasks if task in seen or task not in learnt] + [
        task for task in tasks if task in learnt - seen
    ][:1]


def _joint(stream: Stream, epochs: int, seed: int) -> list[Phase]:
    samples = [sample for phase in stream.phases for sample in phase.samples]
    shuffled = []
    for epoch in range(epochs):
        random.Random(f"{seed}:{epoch}").shuffle(samples)
        shuffled += samples
    return [Phase("joint", shuffled)]


def _processor() -> str:
    """As Linux calls it: seconds of two kinds of processor cannot be compared."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> dict[str, str]:
    return {
        "processor": _processor(),
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
