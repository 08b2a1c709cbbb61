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
