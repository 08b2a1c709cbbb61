"""A burst of samples with the wrong label, with the gate and without; and what looks bad and does no harm."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import msgspec
import pytest

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.contracts.versions import Verdict
from lifelong.learning.gate import GateSettings
from lifelong.learning.losses import evaluate
from lifelong.learning.replay import randbelow
from lifelong.learning.settings import LearningSettings
from lifelong.trainer.attempts import Attempt
from lifelong.trainer.config import Settings, TrainerSettings

WORDS = {"y": ("rain", "storm", "flood", "damp"), "n": ("sun", "warm", "bright", "dry")}
OTHER = {"y": "n", "n": "y"}
# A random model has no general text to lose. The answers are a letter and the end of a turn, which is always right.
GATE = GateSettings(
    general_tolerance_nats=100,
    general_drift_nats=100,
    held_out_ratio=0.2,
    recent_capacity=8,
    judged_samples=12,
)
OFF = msgspec.structs.replace(GATE, held_out_tolerance_nats=100, new_tolerance_nats=100, known_nats=0)


def weather(number: int, *, flipped: bool = False, partition: int = 0) -> Sample:
    label = "ny"[randbelow(2, "label", partition, number)]
    word = WORDS[label][randbelow(4, "word", partition, number)]
    answer = OTHER[label] if flipped else label
    return Sample(
        id=f"{partition}-{number}-0",
        event_id=f"e{partition}-{number}",
        event_time=1e9 + number,
        task="weather",
        messages=(Message("user", f"{word} {number % 10}"), Message("assistant", answer)),
    )


def begun(new_trainer, gate: GateSettings):
    settings = Settings(
        learning=LearningSettings(learning_rate=5e-3, kl_samples=0),
        gate=gate,
        trainer=TrainerSettings(batch_size=8, anchor_prompts=("Who are you?", "What is rain?", "Why?")),
    )
    trainer = new_trainer(settings)
    trainer.begin()
    return trainer


class Outcome(NamedTuple):
    right_before: float
    right_after: float
    learnt: list[str]
    refused: list[str]
    versions_at_fault: list[int]


def right(trainer) -> float:
    """Share of fresh samples of which the label is likelier than the other, as it is served."""
    schooling = trainer.schooling
    fresh = [weather(number, partition=9) for number in range(40)]
    wrong = [weather(number, partition=9, flipped=True) for number in range(40)]
    with schooling.served():
        losses, others = (evaluate(schooling._learner, samples, 512) for samples in (fresh, wrong))
    return sum(losses[sample.id] < others[sample.id] for sample in fresh) / len(fresh)


def after_a_burst(new_trainer, new_record, gate: GateSettings) -> Outcome:
    trainer = begun(new_trainer, gate)
    learnt, refused, at_fault = [], [], []
    right_before = 0.0
    for number in range(24 * 8 + 200):
        if number == 24 * 8:
            right_before = right(trainer)
        trainer.take(new_record(number, weather(number, flipped=number >= 24 * 8)))
        if trainer.ready() == "size":
            manifest = trainer.learn("size", epoch=1).manifest
            refused += [name for part in manifest.refused for name in part.samples]
            learnt += sorted({*manifest.batches[0].samples} - {*refused})
            at_fault += [manifest.number] if manifest.refused else []
            assert manifest.counts.get("rejected", 0) == len(refused)
            assert manifest.counts["trained"] == len(learnt)
    return Outcome(right_before, right(trainer), learnt, refused, at_fault)


def test_a_burst_of_wrong_labels_is_kept_out(new_trainer, new_record):
    without = after_a_burst(new_trainer, new_record, OFF)
    assert without.right_before == 1.0
    assert without.right_after < 0.7
    assert not without.refused

    gated = after_a_burst(new_trainer, new_record, GATE)
    assert gated.right_before == 1.0
    assert gated.right_after == 1.0
    # Nothing good is refused, and most of what is wrong is; it is named.
    assert all(int(name.split("-")[1]) >= 24 * 8 for name in gated.refused)
    assert len(gated.refused) > 150
    assert min(gated.versions_at_fault) == 25


def test_a_label_that_is_new_is_learnt_and_not_taken_for_a_wrong_one(new_trainer, new_record):
    """In the same task, of which the other labels are known well."""
    trainer = begun(new_trainer, GATE)
    for number in range(48 * 8):
        sample = weather(number)
        if number >= 24 * 8 and number % 2:
            messages = (
                Message("user", f"{('gale', 'gust')[number % 4 // 2]} {number % 10}"),
                Message("assistant", "w"),
            )
            sample = msgspec.structs.replace(sample, messages=messages)
        trainer.take(new_record(number, sample))
        if trainer.ready() == "size":
            manifest = trainer.learn("size", epoch=1).manifest
            assert not manifest.refused, manifest.verdict.reason
    assert sample.messages[1].content == "w"
    with trainer.schooling.served():
        assert evaluate(trainer.schooling._learner, [sample], 512)[sample.id] < 0.5
    assert right(trainer) == 1.0


@pytest.mark.parametrize("kind", ["again", "late", "empty", "endless"])
def test_what_looks_bad_and_does_no_harm(new_trainer, new_record, kind):
    trainer = begun(new_trainer, GATE)
    odd = {
        "again": lambda n: weather(n % 8),
        "late": lambda n: weather(n),
        "empty": lambda n: weather(n),
        "endless": lambda n: weather(n),
    }[kind]
    for number in range(28 * 8):
        sample = weather(number)
        if number >= 24 * 8:
            sample = odd(number)
            fields = {"id": f"0-{number}-0"}
            if kind == "late":
                fields["event_time"] = 1.0
            if kind == "empty" and number % 2:
                fields["messages"] = (sample.messages[0], Message("assistant", ""))
            if kind == "endless" and number % 8 == 0:
                fields["messages"] = (Message("user", "storm " * 10_000), sample.messages[1])
            sample = msgspec.structs.replace(sample, **fields)
        trainer.take(new_record(number, sample))
        if trainer.ready() == "size":
            manifest = trainer.learn("size", epoch=1).manifest
            assert manifest.verdict.accepted
            assert not manifest.refused
    assert trainer.number == 28
    assert right(trainer) == 1.0


@pytest.mark.parametrize(
    ("num_wrong", "fields", "suspected", "num_learnt"),
    [
        (5, {}, (), 3),
        (6, {}, (), 0),
        (6, {"until_known": True}, (), 2),
        (6, {"task": "other"}, (), 2),
        (8, {}, (), 0),
        (2, {}, ("weather",), 0),
        (2, {"until_known": True}, ("weather",), 6),
        (2, {"task": "other"}, ("weather",), 6),
        (2, {"task": "other"}, ("other",), 0),
    ],
)
def test_what_is_left_is_refused_with_wrong_samples_if_it_is_little_or_under_suspicion(
    new_trainer, monkeypatch, num_wrong, fields, suspected, num_learnt
):
    schooling = begun(new_trainer, GATE).schooling
    schooling.judging.note_claims(suspected, suspected)
    wrong = [weather(number, flipped=True) for number in range(num_wrong)]
    rest = [msgspec.structs.replace(weather(number), **fields) for number in range(num_wrong, 8)]
    rejected = Attempt([*wrong, *rest], None, Verdict(False, "wrong"), None, {sample.id for sample in wrong})
    monkeypatch.setattr(
        schooling, "_attempt", lambda new, course: rejected._replace(new=new, verdict=Verdict(True, ""), unlikely=set())
    )
    found = schooling._parts(rejected, SimpleNamespace(num_attempts_left=6))
    learnt = [sample for part in found if part.verdict.accepted for sample in part.new]
    refused = [sample for part in found if not part.verdict.accepted for sample in part.new]
    assert learnt == rest[:num_learnt]
    assert refused == [*wrong, *rest[num_learnt:]]
