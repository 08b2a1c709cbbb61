"""The streams by name, ready to be learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from benchmarks.learning import domains, facts, general, tasks
from benchmarks.learning.exams import LabelExam, bits_per_byte, exact
from benchmarks.learning.run import Phase, Stream

from lifelong.contracts.samples import Sample

_TOKENS = 1024
"""Of a forward pass without gradients."""


class Size(msgspec.Struct, frozen=True):
    """How much there is of everything."""

    task_samples: int = 200
    task_tests: int = 100
    burst: int = 200
    """Mislabelled samples."""
    domain_samples: int = 96
    domain_tests: int = 24
    facts: tuple[int, int, int] = (100, 30, 30)
    """At first, changed, new."""
    fact_tests: int = 100
    """Of each kind."""
    general: int = 16
    """Passages."""


FULL = Size()
QUICK = Size(
    task_samples=8, task_tests=4, burst=8, domain_samples=8, domain_tests=4, facts=(8, 4, 4), fact_tests=4, general=8
)
STRETCHES = 5


def s1(size: Size, seed: int) -> Stream:
    """Tasks one after the other."""
    found = tasks.tasks(size.task_samples, size.task_tests, seed)
    return _of_tasks("S1", found, [Phase(task.name, task.train) for task in found], size)


def s1_blurry(size: Size, seed: int) -> Stream:
    """The same with some of each task at other times."""
    found = tasks.tasks(size.task_samples, size.task_tests, seed)
    return _of_tasks("S1-blurry", found, _stretches(tasks.blurry(found, seed)), size)


def s1_recurring(size: Size, seed: int) -> Stream:
    """The same in short stretches that come again."""
    found = tasks.tasks(size.task_samples, size.task_tests, seed)
    return _of_tasks("S1-recurring", found, _stretches(tasks.recurring(found, seed)), size)


def s1_poison(size: Size, seed: int) -> Stream:
    """Two tasks, and then nothing but wrong labels of both."""
    num_wrong = size.burst // 2
    found = tasks.tasks(size.task_samples + num_wrong, size.task_tests, seed)[:2]
    wrong = [tasks.mislabelled(task, task.train[size.task_samples :], seed) for task in found]
    right = [Phase(task.name, task.train[: size.task_samples]) for task in found]
    mixed = [sample for pair in zip(*wrong, strict=True) for sample in pair]
    return _of_tasks("S1-poison", found, [*right, Phase("burst", mixed)], size)


def s2(size: Size, seed: int) -> Stream:
    """Language modelling: domains one after the other, and the first once more."""
    return _of_domains("S2", size, size.domain_samples, seed)


def s2_long(size: Size, seed: int) -> Stream:
    """The same, four times as long: how much is learnt of a domain depends on how much of it there is."""
    return _of_domains("S2-long", size, size.domain_samples * 4, seed)


def _of_domains(name: str, size: Size, num_train: int, seed: int) -> Stream:
    found = domains.domains(num_train, size.domain_tests, seed)
    return Stream(
        name,
        [Phase(domain.name, domain.train) for domain in found],
        {domain.name: domain.test for domain in found},
        general.passages(size.general),
        lambda learner: bits_per_byte(_TOKENS),
    )


def s3(size: Size, seed: int) -> Stream:
    """Facts, of which some change later while their neighbours stay."""
    first, then = facts.facts(*size.facts, seed)
    told_first = facts.samples(first, partition=0)
    told_then = facts.samples(then, partition=1, start=float(len(first)))
    kept = [sample for fact, sample in zip(first, told_first, strict=True) if fact.kind == "kept"]
    changed = [(fact, sample) for fact, sample in zip(then, told_then, strict=True) if fact.kind == "changed"]
    new = [sample for fact, sample in zip(then, told_then, strict=True) if fact.kind == "new"]
    stale = [_answered(sample, fact.old) for fact, sample in changed if fact.old is not None]
    tests = {"kept": kept, "changed": [sample for _, sample in changed], "stale": stale, "new": new}
    return Stream(
        "S3",
        [Phase("5.0.0", told_first), Phase("8.1.9", told_then)],
        {
            kind: [msgspec.structs.replace(s, task=kind) for s in found[: size.fact_tests]]
            for kind, found in tests.items()
        },
        general.passages(size.general),
        lambda learner: exact(_TOKENS),
    )


def _answered(sample: Sample, answer: str) -> Sample:
    *asked, told = sample.messages
    return msgspec.structs.replace(sample, messages=(*asked, msgspec.structs.replace(told, content=answer)))


def _of_tasks(name: str, found: Sequence[tasks.Task], phases: Sequence[Phase], size: Size) -> Stream:
    every = [sample for task in found for sample in (*task.train, *task.test)]
    return Stream(
        name,
        phases,
        {task.name: task.test for task in found},
        general.passages(size.general),
        lambda learner: LabelExam(learner, every, _TOKENS),
    )


def _stretches(samples: Sequence[Sample]) -> list[Phase]:
    length = -(-len(samples) // STRETCHES)
    return [
        Phase(f"stretch {number + 1}", samples[number * length : (number + 1) * length]) for number in range(STRETCHES)
    ]


STREAMS: dict[str, Callable[[Size, int], Stream]] = {
    "S1": s1,
    "S1-blurry": s1_blurry,
    "S1-recurring": s1_recurring,
    "S1-poison": s1_poison,
    "S2": s2,
    "S2-long": s2_long,
    "S3": s3,
}
