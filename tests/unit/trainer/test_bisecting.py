"""What is bad in a micro-batch is found and named, the rest is learnt, and all of it is a function of the log."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.trainer.runs import is_the_same_killed_after_every_version
from tests.unit.trainer.test_handler import LENIENT, SETTINGS
from tests.unit.trainer.world import World

from lifelong.contracts import metrics as names
from lifelong.contracts import topics
from lifelong.contracts.events import Forget
from lifelong.contracts.versions import Verdict
from lifelong.learning.losses import evaluate
from lifelong.lineage import of_event, of_version
from lifelong.model.base import load_base
from lifelong.trainer import schooling
from lifelong.trainer.config import TrainerSettings
from lifelong.trainer.history import History
from lifelong.trainer.signals import SIGNALS_FILE
from lifelong.trainer.state import STATE_FILE, unpack_state
from lifelong.trainer.verify import verify

OF_EIGHT = msgspec.structs.replace(
    SETTINGS, trainer=TrainerSettings(batch_size=8, anchor_prompts=("Who are you?", "What is rain?"))
)


@pytest.fixture
def bad(monkeypatch) -> set[str]:
    """Ids of samples that the gate finds harmful, alone or with others."""
    found: set[str] = set()

    def judge(new_before, new_after, slices, settings, share, claims):
        harmful = sorted(found & new_before.keys())
        return Verdict(not harmful, f"{len(harmful)} harmful" if harmful else "fine")

    monkeypatch.setattr(schooling, "judge", judge)
    return found


def test_the_bad_one_is_found_and_the_good_are_learnt(new_trainer, new_record, new_sample, bad):
    bad |= {"0-5-0"}
    trainer = new_trainer(OF_EIGHT)
    trainer.begin()
    steps = []
    for number in range(8):
        trainer.take(new_record(number, new_sample(number)))
    candidate = trainer.learn("size", epoch=1, on_step=steps.append)
    manifest = candidate.manifest
    assert manifest.verdict == Verdict(True, "without 1 of 8 samples, with which 1 harmful")
    assert [(part.samples, part.events, part.reason) for part in manifest.refused] == [
        (("0-5-0",), ("e0-5",), "1 harmful")
    ]
    assert manifest.counts == {"sample": 8, "trained": 7, "rejected": 1}
    assert manifest.num_learnt == 7
    assert manifest.batches[0].samples == tuple(f"0-{number}-0" for number in range(8))
    assert [sample.id for sample in trainer.schooling.replay.samples] == [f"0-{n}-0" for n in range(8) if n != 5]
    # All of it, the first half, the second half, its first half, one, the other, and its second half.
    assert steps == sorted(steps)
    assert manifest.batches[0].num_steps > 7
    assert candidate.report.lesson.before.keys() == {f"0-{number}-0" for number in range(8)}
    assert candidate.report.lesson.after.keys() == candidate.report.lesson.before.keys() - {"0-5-0"}


def test_what_was_refused_has_not_touched_the_weights(new_trainer, new_record, new_sample, bad):
    """As if the parts that were accepted had been micro-batches that came alone."""
    bad |= {"0-0-0", "0-1-0", "0-2-0", "0-3-0"}
    settings = msgspec.structs.replace(
        OF_EIGHT,
        # What is drawn for a step goes by its number in the version.
        learning=msgspec.structs.replace(OF_EIGHT.learning, replay_samples=0, anchor_samples=0, reading_samples=0),
    )
    ends = []
    for first in (0, 4):
        trainer = new_trainer(settings)
        trainer.begin()
        for number in range(first, 8):
            trainer.take(new_record(number, new_sample(number), from_offset=0))
        manifest = trainer.learn("flush", epoch=1).manifest
        files = trainer.schooling.files()
        # What was known of the samples before was found out in one pass with those that were refused: other sums. And
        # general text is got used to by a smaller step where something was refused.
        del files[SIGNALS_FILE]
        state = unpack_state(files)
        del files[STATE_FILE]
        ends.append((manifest.weights_sha256, files, state.learnt, state.replay))
    is_same = ends[0] == ends[1]
    assert is_same  # of bytes by the thousand pytest would look for the difference for minutes


@pytest.mark.parametrize(
    ("attempts", "sizes"), [(0, [8]), (1, [8]), (2, [4]), (3, [4]), (4, [2]), (6, [1, 1]), (99, [1, 1])]
)
def test_it_is_halved_as_often_as_is_allowed(new_trainer, new_record, new_sample, bad, attempts, sizes):
    bad |= {"0-6-0", "0-7-0"}
    settings = msgspec.structs.replace(OF_EIGHT, gate=msgspec.structs.replace(LENIENT, bisect_attempts=attempts))
    trainer = new_trainer(settings)
    trainer.begin()
    for number in range(8):
        trainer.take(new_record(number, new_sample(number)))
    manifest = trainer.learn("size", epoch=1).manifest
    assert [len(part.samples) for part in manifest.refused] == sizes
    assert manifest.verdict.accepted == (sizes != [8])
    assert manifest.counts.get("trained", 0) == 8 - sum(sizes)


def test_killed_after_every_version_is_the_same_to_the_byte(new_trainer, fact_stream, bad):
    bad |= {"0-2-0", "0-7-0", "1-6-0"}
    candidates = is_the_same_killed_after_every_version(new_trainer, OF_EIGHT, fact_stream(24))
    assert {name for c in candidates for part in c.manifest.refused for name in part.samples} == bad


def test_where_all_of_it_is_bad_not_all_of_it_is_halved(new_trainer, new_record, new_sample, bad):
    bad |= {f"0-{number}-0" for number in range(8)}
    trainer = new_trainer(OF_EIGHT)
    trainer.begin()
    for number in range(8):
        trainer.take(new_record(number, new_sample(number)))
    manifest = trainer.learn("size", epoch=1).manifest
    assert [len(part.samples) for part in manifest.refused] == [1, 1, 2, 4]
    assert not manifest.verdict.accepted
    assert manifest.counts == {"sample": 8, "rejected": 8}


@pytest.mark.parametrize("forgotten", ["e0-4", "e0-1"])
def test_forgotten_and_verified_also_with_a_quarantine(tiny_folder, new_record, new_sample, bad, forgotten):
    """The one in quarantine is forgotten, or another of its micro-batch."""
    bad |= {"0-4-0"}
    world = World(tiny_folder)
    world.publish([new_record(n, new_sample(n), event_id=f"e0-{n}") for n in range(9)])
    world.run()
    second = world.registry.manifest("lifelong", 2)
    assert [part.events for part in second.refused] == [("e0-4",)]
    assert world.metrics.value(names.SAMPLES, fate="rejected", task="fact") == 1
    assert world.metrics.value(names.SAMPLES, fate="trained", task="fact") == 8
    newest = world.registry.newest("lifelong")
    found = of_event(world.registry, newest, lambda: world.broker.source([topics.SAMPLES.name]), event_id="e0-4")
    assert (found.fate, found.first, found.versions) == ("rejected", 2, [])
    lesson = of_version(world.registry, newest, 9).lessons[1]
    assert [place.offset for place in lesson.trained] == [3, 5]
    assert [place.offset for place in lesson.refused] == [4]

    world.publish([new_record(9, outcome="forget", forget=Forget(event_ids=(forgotten,)))])
    world.run()
    newest = world.registry.newest("lifelong")
    assert newest.relearned == ((2, 3) if forgotten == "e0-4" else (1, 2, 3))
    assert newest.counts.get("rejected", 0) == (0 if forgotten == "e0-4" else 1)
    assert newest.counts["forgotten"] == 1
    for from_base in (False, True):
        history = History(lambda: world.broker.source([topics.SAMPLES.name]))
        result = verify(world.registry, newest, history, world.settings.model, load_base, from_base=from_base)
        assert result.differences == []


def test_probes_judge_and_are_taken_away_and_a_version_stays_a_function_of_the_log(tiny_folder, new_record, new_sample):
    world = World(tiny_folder)
    probe = new_sample(3, question="Who leads?", answer="Quoggy.", task="must")
    world.publish([new_record(n, new_sample(n)) for n in range(3)])
    world.publish([new_record(3, outcome="probe", probe=probe)])
    world.run()
    # It alone makes a version, from which on it is there.
    added = world.registry.manifest("lifelong", 2)
    assert (added.batches[0].samples, added.weights_sha256) == (
        (),
        world.registry.manifest("lifelong", 1).weights_sha256,
    )
    assert added.counts == {"sample": 3, "probe": 1, "trained": 3}
    assert probes_of(world, added) == ["e0-3"]
    world.publish([new_record(n, new_sample(n)) for n in range(4, 7)])
    world.run()
    judged = world.registry.manifest("lifelong", 3)
    assert judged.verdict.scores["judged:probe:must"] == 1
    assert not any(probe.id in (*b.samples, *b.held_out, *b.replayed) for b in judged.batches)
    world.publish([new_record(7, outcome="forget", forget=Forget(event_ids=("e0-3",)))])
    world.publish([new_record(8, new_sample(8))])
    world.run()
    gone = world.registry.manifest("lifelong", 4)
    # Nothing was learnt of it, so nothing is relearnt.
    assert (gone.relearned, gone.weights_sha256) == ((), judged.weights_sha256)
    assert probes_of(world, gone) == []
    newest = world.registry.newest("lifelong")
    assert "judged:probe:must" not in newest.verdict.scores
    history = History(lambda: world.broker.source([topics.SAMPLES.name]))
    result = verify(world.registry, newest, history, world.settings.model, load_base, from_base=True)
    assert result.differences == []
    # Relearnt without something else, it is judged by while it was there, and not after.
    world.publish([new_record(9, outcome="forget", forget=Forget(event_ids=("e0-0",)))])
    world.run()
    newest = world.registry.newest("lifelong")
    assert newest.relearned == (1, 2, 3, 4, 5)
    assert probes_of(world, newest) == []


def probes_of(world: World, manifest) -> list[str]:
    lines = world.registry.weights(manifest, "probes.jsonl").splitlines()
    return [msgspec.json.decode(line)["event_id"] for line in lines]


def test_what_was_measured_after_a_step_that_was_taken_back_is_not_what_was_known(
    new_trainer, new_record, new_sample, bad
):
    bad |= {f"0-{number}-0" for number in range(4)}
    samples = [new_sample(number, until_known=False) for number in range(8)]
    settings = msgspec.structs.replace(OF_EIGHT, gate=msgspec.structs.replace(LENIENT, bisect_attempts=2))
    trainer = new_trainer(settings)
    trainer.begin()
    known = evaluate(trainer.schooling._learner, samples, 512)
    for number, sample in enumerate(samples):
        trainer.take(new_record(number, sample))
    candidate = trainer.learn("size", epoch=1)
    assert [len(part.samples) for part in candidate.manifest.refused] == [4]
    # The second half was learnt from the parent, after the whole had learnt the first half before it.
    assert candidate.report.lesson.before == pytest.approx(known, rel=1e-4)
