from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lifelong.contracts.events import Forget
from lifelong.contracts.samples import SampleRecord
from lifelong.contracts.versions import Manifest
from lifelong.distiller import handler
from lifelong.distiller.round import Scores


def record(number: int, samples: Any = (), **fields: Any) -> SampleRecord:
    outcome = "sample" if samples else "duplicate"
    return SampleRecord(
        "lifelong.events.v1", 0, number, number + 1, fields.pop("outcome", outcome), tuple(samples), **fields
    )


def fill(distiller: Any, new_sample: Any, numbers: Any, now: float = 0.0) -> None:
    for number in numbers:
        assert distiller.take(record(number, [new_sample(number)]), 0, number, now) == "new"


def draft(number: int = 1, teacher: str = "lifelong@1") -> Manifest:
    return Manifest(
        line="lifelong-student", number=number, parent=number - 1, kind="student", base="tiny[0-2]", base_sha256="0",
        epoch=1, created=1.0, weights_sha256="", files={}, folder="", watermarks={}, positions={}, teacher=teacher,
    )  # fmt: skip


def learn(distiller: Any, teacher: Any, number: int = 1, name: str = "lifelong@1") -> Any:
    return distiller.learn(teacher, draft(number, name), 100.0, lambda step: True)


def test_every_record_is_taken_once(new_distiller: Any, new_sample: Any) -> None:
    distiller = new_distiller()
    fill(distiller, new_sample, range(3))
    assert distiller.take(record(1, [new_sample(1)]), 0, 3, 0.0) == "duplicate"
    assert distiller.take(record(7, [new_sample(7)]), 0, 4, 0.0) == "gap"
    assert distiller.watermarks == {0: 3}
    assert distiller.positions == {0: 5}
    assert distiller.counts["samples"] == 3


def test_what_says_nothing_is_passed_over(new_distiller: Any, new_sample: Any) -> None:
    """As a rating without a better answer: taken in, and nothing to be taught."""
    distiller = new_distiller()
    disliked = new_sample(0)
    disliked = msgspec.structs.replace(disliked, messages=disliked.messages[:1], weight=0.0, rating=-1.0)
    unanswered = msgspec.structs.replace(disliked, weight=1.0)
    assert distiller.take(record(0, [disliked, unanswered]), 0, 0, 0.0) == "new"
    assert (distiller.watermarks, distiller.counts["samples"]) == ({0: 1}, 0)


def test_a_round_makes_a_version_that_is_closer(
    new_distiller: Any, new_sample: Any, teacher: Any, settings: Any
) -> None:
    distiller = new_distiller()
    fill(distiller, new_sample, range(12))
    result = learn(distiller, teacher)
    assert result.manifest.verdict.accepted
    assert result.after.loss(settings) < result.before.loss(settings)
    assert result.manifest.watermarks == {0: 12}
    assert result.manifest.newest_event_time == 111.0
    assert set(result.files) == {
        "adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "buffer.json",
    }  # fmt: skip


def test_resumed_is_uninterrupted(new_distiller: Any, new_sample: Any, teacher: Any) -> None:
    one = new_distiller()
    fill(one, new_sample, range(12))
    first = learn(one, teacher)
    fill(one, new_sample, range(12, 20))
    through = learn(one, teacher, 2, "lifelong@2")

    other = new_distiller()
    other.restore(first.manifest, first.files)
    fill(other, new_sample, range(12, 20))
    resumed = learn(other, teacher, 2, "lifelong@2")
    assert resumed.manifest == through.manifest
    assert resumed.files == through.files


def test_a_round_that_makes_it_worse_leaves_it_as_it_was(
    new_distiller: Any, new_sample: Any, teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    distiller = new_distiller()
    fill(distiller, new_sample, range(12))
    before = distiller._files()
    scores = iter([Scores(1.0, 1.0, 0.5), Scores(float("nan"), 1.0, 0.5)])
    monkeypatch.setattr(handler, "score", lambda *_: next(scores))
    result = learn(distiller, teacher)
    assert not result.manifest.verdict.accepted
    assert {name: result.files[name] for name in before} == before
    # Its events are dealt with all the same, and the same teacher is not tried again at once.
    assert result.manifest.watermarks == {0: 12}
    assert not distiller.is_due("lifelong@1", 1e9)


def test_a_round_that_is_ended_early_leaves_it_as_it_was(new_distiller: Any, new_sample: Any, teacher: Any) -> None:
    distiller = new_distiller()
    fill(distiller, new_sample, range(12))
    before = distiller._files()
    assert distiller.learn(teacher, draft(), 100.0, lambda step: step < 3) is None
    assert distiller._files() == before
    assert distiller.is_due("lifelong@1", 1e9)


def test_when_a_round_is_due(new_distiller: Any, new_sample: Any, teacher: Any) -> None:
    distiller = new_distiller()
    fill(distiller, new_sample, range(8), now=10.0)
    assert not distiller.is_due("lifelong@1", 14.0), "the stream is not quiet yet"
    assert distiller.is_due("lifelong@1", 15.0)
    distiller.note_teacher_changed(20.0)
    assert not distiller.is_due("lifelong@2", 24.0)
    assert distiller.is_due("lifelong@2", 25.0)


def test_a_stream_that_is_never_quiet_does_not_put_rounds_off_for_ever(
    new_distiller: Any, new_sample: Any, teacher: Any
) -> None:
    distiller = new_distiller()
    fill(distiller, new_sample, range(8), now=299.0)
    assert not distiller.is_due("lifelong@1", 299.5)
    assert distiller.is_due("lifelong@1", 300.0)
    assert distiller.learn(teacher, draft(), 400.0, lambda step: True) is not None
    assert not distiller.is_due("lifelong@1", 1e9), "the same teacher has nothing new"
    distiller.note_teacher_changed(699.0)
    assert not distiller.is_due("lifelong@2", 699.5)
    assert distiller.is_due("lifelong@2", 700.0)


def test_drift_does_not_wait_for_quiet(new_distiller: Any, new_sample: Any, teacher: Any) -> None:
    busy = 101.0
    for on_drift in (False, True):
        distiller = new_distiller(on_drift=on_drift)
        fill(distiller, new_sample, range(8), now=100.0)
        assert not distiller.is_due("lifelong@1", busy, 0)
        assert distiller.is_due("lifelong@1", busy, 2) == on_drift
    result = distiller.learn(teacher, draft(), busy, lambda step: True, 2)
    assert result is not None
    distiller.note_teacher_changed(busy)
    assert not distiller.is_due("lifelong@2", busy, 2), "it was taught since"
    assert distiller.is_due("lifelong@2", busy, 3)
    # Who comes next knows of it; and what the teacher had to forget may have been a drift.
    successor = new_distiller(on_drift=True)
    successor.restore(result.manifest, result.files)
    successor.note_teacher_changed(busy)
    assert not successor.is_due("lifelong@2", busy, 2)
    assert not successor.is_due("lifelong@3", busy, 1)
    assert successor.is_due("lifelong@4", busy, 2)


def test_too_few_samples_are_no_round(new_distiller: Any, new_sample: Any) -> None:
    assert not new_distiller().is_due("lifelong@1", 1e9)


def test_what_must_be_forgotten_is_not_distilled_on(new_distiller: Any, new_sample: Any) -> None:
    distiller = new_distiller()
    for number in range(10):
        user = "ann" if number % 2 else None
        distiller.take(record(number, [new_sample(number, user=user)]), 0, number, 0.0)
    distiller.take(record(10, outcome="forget", forget=Forget(event_ids=("e0",), user="ann")), 0, 10, 0.0)
    state = msgspec.json.decode(distiller._files()["buffer.json"], type=handler.BufferState)
    left = {sample.event_id for sample in (*state.samples, *state.judged)}
    assert left == {"e2", "e4", "e6", "e8"}


def test_a_student_that_has_learnt_what_must_be_forgotten_begins_anew(
    new_distiller: Any, new_sample: Any, teacher: Any
) -> None:
    distiller = new_distiller()
    users = {3: "ann"}
    for number in range(12):
        distiller.take(record(number, [new_sample(number, user=users.get(number))]), 0, number, 0.0)
    first = distiller.learn(teacher, draft(), 100.0, lambda step: True)
    distiller.take(record(12, outcome="forget", forget=Forget(user="ann")), 0, 12, 0.0)
    assert not distiller.may_be_taught_by(msgspec.structs.replace(draft(), watermarks={0: 12}))
    assert distiller.may_be_taught_by(msgspec.structs.replace(draft(), watermarks={0: 13}))
    again = distiller.learn(teacher, draft(number=2, teacher="lifelong@2"), 200.0, lambda step: True)

    never_saw = new_distiller()
    for number in range(12):
        samples = [] if number in users else [new_sample(number)]
        never_saw.take(record(number, samples, outcome="sample" if samples else "memory-only"), 0, number, 0.0)
    expected = never_saw.learn(teacher, draft(number=2, teacher="lifelong@2"), 200.0, lambda step: True)
    assert (first.manifest.parent, again.manifest.parent) == (0, 0)
    assert again.manifest.weights_sha256 != first.manifest.weights_sha256
    kept = msgspec.json.decode(again.files["buffer.json"], type=handler.BufferState)
    assert {sample.event_id for sample in (*kept.samples, *kept.judged)} == {f"e{n}" for n in range(12) if n != 3}
    assert again.before == expected.before


def test_a_student_that_knew_nothing_of_it_goes_on(new_distiller: Any, new_sample: Any, teacher: Any) -> None:
    distiller = new_distiller()
    fill(distiller, new_sample, range(12))
    distiller.learn(teacher, draft(), 100.0, lambda step: True)
    distiller.take(record(12, outcome="forget", forget=Forget(user="bob")), 0, 12, 0.0)
    assert distiller.may_be_taught_by(msgspec.structs.replace(draft(), watermarks={}))
    assert distiller.learn(teacher, draft(number=2), 200.0, lambda step: True).manifest.parent == 1
