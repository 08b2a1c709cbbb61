"""The weights of a version by their definition, written down a second time.

weights(N) = the micro-batches of the chain up to N, each learnt under the number it had, in order, without the samples
that a request to forget taken in up to N is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.simulation import model
from tests.simulation.config import RunConfig
from tests.simulation.invariants import Books, Evidence

from lifelong.contracts.events import Forget
from lifelong.contracts.samples import Sample, must_be_forgotten
from lifelong.contracts.versions import Manifest
from lifelong.model.hashing import combined_sha256, tensor_hashes
from lifelong.model.learner import AdapterLearner
from lifelong.runtime.clock import ManualClock
from lifelong.trainer.schooling import Schooling


class _Batch(NamedTuple):
    number: int
    samples: list[Sample]
    probes: list[Sample]
    forgets: list[Forget]


def fold_weights(config: RunConfig, evidence: Evidence) -> str | None:
    """sha256 of the newest version of the main line; ``None``: there is none."""
    batches = list(_batches(evidence))
    if not batches:
        return None
    s = config.trainer
    base = model.load(s.model)
    learner = AdapterLearner(base, s.adapter, seed=s.learning.seed, max_tokens=s.learning.max_tokens)
    schooling = Schooling(learner, s.curriculum, ManualClock())
    schooling.begin(s.trainer.anchor_prompts)
    for index, batch in enumerate(batches):
        later = [forget for other in batches[index:] for forget in other.forgets]
        samples = [s for s in batch.samples if not any(must_be_forgotten(s, forget) for forget in later)]
        probes = sorted(batch.probes, key=_canonical)
        schooling.learn(batch.number, sorted(samples, key=_canonical), batch.forgets, probes=probes)
    return combined_sha256(tensor_hashes(schooling.served_state()))


def _batches(evidence: Evidence) -> Iterator[_Batch]:
    books = Books(evidence)
    chain: Sequence[Manifest] = books.chain(evidence.line)
    numbered = {m.number: m for version in chain for m in books.batches(version)}
    before: Mapping[int, int] = {}
    for number in sorted(numbered):
        manifest = numbered[number]
        accounts = list(books.between(before, manifest.watermarks))
        before = manifest.watermarks
        yield _Batch(
            number,
            [sample for account in accounts for sample in account.record.samples],
            [account.record.probe for account in accounts if account.record.probe],
            [account.record.forget for account in accounts if account.record.forget],
        )


def _canonical(sample: Sample) -> tuple[float, int, int, int]:
    partition, offset, index = map(int, sample.id.split("-"))
    return sample.event_time, partition, offset, index
