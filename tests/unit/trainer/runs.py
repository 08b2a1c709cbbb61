"""A trainer that learns a list of records, in one go or killed after every version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from lifelong.stream.base import Record
from lifelong.trainer.config import Settings
from lifelong.trainer.handler import Candidate, Trainer


def learn_all(
    trainer: Trainer,
    records: Sequence[Record],
    after_each: Callable[[Trainer, Candidate], Trainer] = lambda trainer, candidate: trainer,
) -> list[Candidate]:
    """Feed the records as a source would that goes on from the trainer's positions; the candidates in order."""
    candidates = []
    while trainer.positions != end_of(records):
        for record in [record for record in records if record.offset >= trainer.positions.get(record.partition, 0)]:
            trainer.take(record)
            if trainer.ready() == "size":
                break
        candidates.append(trainer.learn(trainer.ready() or "flush", epoch=1))
        trainer = after_each(trainer, candidates[-1])
    return candidates


def end_of(records: Sequence[Record]) -> Mapping[int, int]:
    return {
        partition: max(record.offset for record in records if record.partition == partition) + 1
        for partition in sorted({record.partition for record in records})
    }


def is_the_same_killed_after_every_version(
    new_trainer: Callable[[Settings], Trainer], settings: Settings, records: Sequence[Record]
) -> list[Candidate]:
    """The candidates of who was not killed, if those of who was are the same to the byte."""

    def kill(trainer: Trainer, candidate: Candidate) -> Trainer:
        successor = new_trainer(settings)
        manifest = msgspec.json.decode(msgspec.json.encode(candidate.manifest), type=type(candidate.manifest))
        successor.restore(manifest, candidate.files)
        return successor

    whole, first = new_trainer(settings), new_trainer(settings)
    whole.begin()
    first.begin()
    uninterrupted, interrupted = learn_all(whole, records), learn_all(first, records, kill)
    assert [c.manifest for c in interrupted] == [c.manifest for c in uninterrupted]
    assert interrupted[-1].files == uninterrupted[-1].files
    return uninterrupted
