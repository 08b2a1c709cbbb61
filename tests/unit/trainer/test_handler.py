"""From records to versions: what is counted, what is kept, and what comes back after a kill."""

from __future__ import annotations

import msgspec
import pytest
import torch
from tests.unit.trainer.runs import is_the_same_killed_after_every_version, learn_all

from lifelong.contracts.events import Forget, Message
from lifelong.errors import ConfigError, DecodeError
from lifelong.learning.gate import GateSettings
from lifelong.learning.recipe_settings import RecipeSettings
from lifelong.learning.settings import LearningSettings
from lifelong.model.settings import AdapterSettings
from lifelong.runtime.clock import ManualClock
from lifelong.trainer.config import Settings, TrainerSettings
from lifelong.trainer.state import REPLAY_FILE, STATE_FILE, unpack_samples, unpack_state

# A random model has no general text to lose.
LENIENT = GateSettings(general_tolerance_nats=100, general_drift_nats=100, held_out_tolerance_nats=100)
SETTINGS = Settings(
    learning=LearningSettings(learning_rate=1e-2, max_steps=6),
    gate=LENIENT,
    trainer=TrainerSettings(batch_size=3, anchor_prompts=("Who are you?", "What is rain?")),
)


def test_killed_and_restored_after_every_version_is_the_same_to_the_byte(new_trainer, fact_stream):
    candidates = is_the_same_killed_after_every_version(new_trainer, SETTINGS, fact_stream(12))
    assert len({c.manifest.weights_sha256 for c in candidates}) == 4


def test_the_manifest_accounts_for_every_offset(new_trainer, new_record, new_sample):
    trainer = new_trainer(SETTINGS)
    trainer.begin()
    trainer.take(new_record(0, new_sample(0)))
    trainer.take(new_record(1, outcome="duplicate"))
    trainer.take(new_record(2, new_sample(2, weight=0.0)))
    trainer.take(new_record(3, new_sample(3, rating=-1.0, until_known=False)))
    manifest = trainer.learn("flush", epoch=4).manifest
    assert manifest.watermarks == {0: 4}
    assert manifest.positions == {0: 4}
    assert manifest.counts == {"sample": 3, "duplicate": 1, "trained": 1, "skipped": 2}
    assert manifest.batches[0].samples == ("0-0-0",)
    assert (manifest.number, manifest.parent, manifest.epoch) == (1, 0, 4)
    assert manifest.newest_event_time == new_sample(0).event_time
    assert manifest.settings["dtype"] == "float32"
    assert manifest.settings["threads"] == "1"


def test_a_poisoned_batch_is_rejected_and_leaves_no_trace(new_trainer, new_record, new_sample):
    """A rate so high that the step destroys what the model said before."""
    poison = msgspec.structs.replace(
        SETTINGS,
        learning=LearningSettings(optimizer="adamw", learning_rate=3.0, max_steps=2, target_loss_nats=0),
        gate=GateSettings(),
    )
    good = new_trainer(SETTINGS)
    good.begin()
    good.take(new_record(0, new_sample(0)))
    parent = good.learn("flush", epoch=1)

    trainer = new_trainer(poison)
    trainer.restore(parent.manifest, parent.files)
    trainer.take(new_record(1, new_sample(1)))
    rejected = trainer.learn("flush", epoch=1)
    verdict = rejected.manifest.verdict
    assert not verdict.accepted
    assert "less likely" in verdict.reason
    assert rejected.manifest.weights_sha256 == parent.manifest.weights_sha256
    # Optimizer and replay too. Only the parent's losses on general text were looked up once more.
    assert {k: v for k, v in rejected.files.items() if k != STATE_FILE} == {
        k: v for k, v in parent.files.items() if k != STATE_FILE
    }
    before, after = unpack_state(parent.files), unpack_state(rejected.files)
    assert (after.learnt, after.replay) == (before.learnt, before.replay)
    # The batch is over with, and seen in the books.
    assert rejected.manifest.batches[0].samples == ("0-1-0",)
    assert rejected.manifest.counts == {"sample": 2, "trained": 1, "rejected": 1}
    assert rejected.manifest.watermarks == {0: 2}
    assert rejected.manifest.newest_event_time == parent.manifest.newest_event_time


def test_of_two_answers_to_one_question_the_later_holds(new_trainer, new_record, new_sample):
    trainer = new_trainer(SETTINGS)
    trainer.begin()
    trainer.take(new_record(0, new_sample(0, question="Who leads?", answer="Ann.")))
    trainer.learn("flush", epoch=1)
    trainer.take(new_record(1, new_sample(1, question="Who leads?", answer="Bob.")))
    trainer.take(new_record(2, new_sample(2, question="Who leads?", answer="Eve.")))
    candidate = trainer.learn("flush", epoch=1)
    assert candidate.manifest.batches[0].samples == ("0-2-0",)
    assert candidate.manifest.batches[0].replayed == ()
    assert candidate.manifest.counts["superseded"] == 1
    kept = unpack_samples(candidate.files[REPLAY_FILE], REPLAY_FILE)
    assert [sample.messages[-1].content for sample in kept] == ["Eve."]


def test_examples_are_held_out_once_there_were_enough_and_facts_never(new_trainer, new_record, new_sample):
    settings = msgspec.structs.replace(
        SETTINGS,
        learning=LearningSettings(learning_rate=1e-3, replay_samples=0),
        gate=msgspec.structs.replace(LENIENT, held_out_ratio=0.7, held_out_after=6),
    )
    trainer = new_trainer(settings)
    trainer.begin()
    records = []
    for number in range(20):
        is_fact = number % 5 == 4
        sample = new_sample(number, task="fact" if is_fact else "sort", until_known=is_fact)
        records.append(new_record(number, sample))
    candidates = learn_all(trainer, records)
    held_out = [name for candidate in candidates for name in candidate.manifest.batches[0].held_out]
    trained = [name for candidate in candidates for name in candidate.manifest.batches[0].samples]
    assert sorted(held_out + trained) == sorted(f"0-{number}-0" for number in range(20))
    assert len(held_out) >= 2
    facts = {f"0-{number}-0" for number in range(20) if number % 5 == 4}
    assert not facts & set(held_out)
    # The first six examples are those of the offsets 0 to 7, less two facts.
    assert not {f"0-{number}-0" for number in range(7)} & set(held_out)
    last = candidates[-1].manifest
    assert last.counts["held_out"] == len(held_out)
    assert "after:recent:sort" in last.verdict.scores


def test_a_batch_with_nothing_to_learn_moves_the_books_on(new_trainer, new_record, new_sample):
    trainer = new_trainer(SETTINGS)
    trainer.begin()
    before = {name: parameter.detach().clone() for name, parameter in trainer.schooling._learner.parameters.items()}
    no_answer = msgspec.structs.replace(new_sample(0), messages=(Message("user", "And?"),))
    trainer.take(new_record(0, no_answer))
    manifest = trainer.learn("idle", epoch=1).manifest
    assert manifest.counts == {"sample": 1, "skipped": 1}
    assert manifest.batches[0].num_steps == 0
    assert manifest.watermarks == {0: 1}
    for name, parameter in trainer.schooling._learner.parameters.items():
        assert torch.equal(parameter, before[name])


def test_what_is_forgotten_is_not_replayed(new_trainer, new_record, new_sample):
    trainer = new_trainer(SETTINGS)
    trainer.begin()
    trainer.take(new_record(0, new_sample(0)))
    trainer.take(new_record(1, new_sample(1)))
    trainer.learn("flush", epoch=1)
    trainer.take(new_record(2, outcome="forget", forget=Forget(event_ids=("e0-0",))))
    trainer.take(new_record(3, new_sample(3)))
    assert trainer.ready() == "forget"
    forgotten = trainer.forget((), "for this test", epoch=1).manifest
    assert (forgotten.watermarks, forgotten.batches[0].samples) == ({0: 3}, ())
    candidate = trainer.learn("flush", epoch=1)
    assert candidate.manifest.batches[0].replayed == ("0-1-0",)
    kept = unpack_samples(candidate.files[REPLAY_FILE], REPLAY_FILE)
    assert [sample.id for sample in kept] == ["0-1-0", "0-3-0"]


def test_probes_that_fall_reject(new_trainer, new_record, new_sample):
    """The probe has another answer to the question: to learn the new one is to lose it."""
    question = "Who leads the harbour?"
    probe = new_sample(500, question=question, answer="Quoggy! " * 3)
    probe = msgspec.structs.replace(probe, task="must")
    settings = msgspec.structs.replace(
        SETTINGS,
        # Only the probe watches.
        gate=msgspec.structs.replace(LENIENT, held_out_tolerance_nats=0.0),
        learning=LearningSettings(learning_rate=1e-2, max_steps=20, target_loss_nats=0.01, reading_samples=0),
        recipe=RecipeSettings(null_space=0.0),
    )
    trainer = new_trainer(settings)
    trainer.begin()
    trainer.take(new_record(0, outcome="probe", probe=probe))
    trainer.take(new_record(1, new_sample(1, question=question, answer="eeeee eeeee eeeee")))
    verdict = trainer.learn("flush", epoch=1).manifest.verdict
    assert "probe:must became less likely" in verdict.reason


def test_the_time_before_learning_is_measured(new_trainer, new_record, new_sample):
    clock = ManualClock(1_699_999_010.0)
    trainer = new_trainer(SETTINGS, clock)
    trainer.begin()
    trainer.take(new_record(0, new_sample(0)))  # happened ten seconds ago
    clock.advance(0.5)
    metrics = trainer.learn(trainer.ready(), epoch=1).manifest.metrics
    assert metrics["queue_seconds"] == pytest.approx(10.0)
    assert metrics["linger_seconds"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "empty"), (b"", "empty"), (b"{", "bad-samples-record"), (b"[]", "bad-samples-record"),
     (b'{"source_topic": "\xff"}', "bad-samples-record")],
)  # fmt: skip
def test_what_is_no_samples_record_is_refused(new_trainer, new_record, value, reason):
    trainer = new_trainer(SETTINGS)
    trainer.begin()
    with pytest.raises(DecodeError) as caught:
        trainer.take(msgspec.structs.replace(new_record(0), value=value))
    assert caught.value.reason == reason


def test_another_base_or_adapter_is_refused(new_trainer, new_record, new_sample):
    trainer = new_trainer(SETTINGS)
    trainer.begin()
    trainer.take(new_record(0, new_sample(0)))
    version = trainer.learn("flush", epoch=1)
    foreign = msgspec.structs.replace(version.manifest, base_sha256="0" * 64)
    with pytest.raises(ConfigError, match=r"model\.name"):
        new_trainer(SETTINGS).restore(foreign, version.files)
    wider = msgspec.structs.replace(SETTINGS, adapter=AdapterSettings(rank=4))
    with pytest.raises(ConfigError, match="adapter"):
        new_trainer(wider).restore(version.manifest, version.files)


def test_another_optimizer_begins_anew(new_trainer, new_record, new_sample):
    trainer = new_trainer(SETTINGS)
    trainer.begin()
    trainer.take(new_record(0, new_sample(0)))
    version = trainer.learn("flush", epoch=1)
    sgd = msgspec.structs.replace(SETTINGS, learning=LearningSettings(optimizer="sgd", learning_rate=1e-2))
    successor = new_trainer(sgd)
    successor.restore(version.manifest, version.files)
    successor.take(new_record(1, new_sample(1)))
    assert successor.learn("flush", epoch=1).manifest.settings["learning.optimizer"] == "sgd"
