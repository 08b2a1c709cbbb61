"""What is replayed beside a micro-batch, and what the manifest says of it."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.trainer.test_handler import SETTINGS


def with_learning(**fields):
    return msgspec.structs.replace(SETTINGS, learning=msgspec.structs.replace(SETTINGS.learning, **fields))


def test_where_something_is_learnt_until_it_is_known_twice_as_many_are_drawn(
    new_trainer, new_record, new_sample, monkeypatch
):
    trainer = new_trainer(with_learning(replay_samples=3))
    trainer.begin()
    replay, drawn = trainer.schooling.replay, []
    draw = replay.draw
    monkeypatch.setattr(replay, "draw", lambda number, **key: drawn.append(number) or draw(number, **key))
    for number, until_known in enumerate([False, True]):
        drawn.clear()
        trainer.take(new_record(number, new_sample(number, until_known=until_known), from_offset=0))
        trainer.learn("flush", epoch=1)
        assert set(drawn) == {6 if until_known else 3}


@pytest.mark.parametrize("skip_known", [True, False])
def test_what_was_drawn_for_a_step_that_was_not_taken_was_not_replayed(new_trainer, new_record, new_sample, skip_known):
    trainer = new_trainer(with_learning(replay_samples=3, skip_known=skip_known, target_loss_nats=1e9))
    trainer.begin()
    for number in range(2):
        trainer.take(new_record(number, new_sample(number, until_known=False), from_offset=0))
        manifest = trainer.learn("flush", epoch=1).manifest
    (batch,) = manifest.batches
    assert len(trainer.schooling.replay) == 2
    assert (batch.num_steps, batch.replayed) == ((0, ()) if skip_known else (1, ("0-0-0",)))


@pytest.mark.parametrize(("number", "until_known"), [(2, True), (0, True), (2, False)])
def test_facts_are_learnt_beside_readings_of_them_which_nothing_else_hears_of(
    new_trainer, new_record, new_sample, monkeypatch, number, until_known
):
    seen = []
    trainer = new_trainer(with_learning(reading_samples=number, anchor_samples=0))
    learner = trainer.schooling._learner
    logits = learner.logits
    monkeypatch.setattr(
        learner, "logits", lambda samples, **how: seen.append([s.id for s in samples]) or logits(samples, **how)
    )
    trainer.begin()
    trainer.take(new_record(0, new_sample(0, until_known=until_known), from_offset=0))
    seen.clear()
    (batch,) = trainer.learn("flush", epoch=1).manifest.batches
    of_steps = [ids for ids in seen if any(name.startswith("reading-1-") for name in ids)]
    assert all(len(ids) == 1 + number for ids in of_steps)
    assert len({name for ids in of_steps for name in ids}) == (1 + number * batch.num_steps if of_steps else 0)
    assert bool(of_steps) == bool(number and until_known)
    assert (batch.replayed, [sample.id for sample in trainer.schooling.replay.samples]) == ((), ["0-0-0"])
