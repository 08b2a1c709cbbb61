"""What candidates are judged by: the newest and the older, in turns, and how likely it has been."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from lifelong.contracts.events import Message
from lifelong.learning.gate import GateSettings, is_suspect
from lifelong.trainer.attempts import main_tasks
from lifelong.trainer.config import Settings, TrainerSettings
from lifelong.trainer.judging import Judging, JudgingState, Known

SETTINGS = GateSettings(recent_capacity=4, older_capacity=6, judged_samples=5, held_out_tolerance_nats=0.3)


def evaluate(loss: float = 1.0):
    return lambda samples: {sample.id: loss for sample in samples}


def hold_out(judging: Judging, samples, loss: float = 1.0) -> None:
    judging.hold_out(samples, evaluate(loss)(samples))


@pytest.fixture
def of_task(new_sample):
    def make(task: str, first: int, number: int):
        return [new_sample(n, task=task, until_known=False) for n in range(first, first + number)]

    return make


@pytest.fixture
def judging(of_task):
    """Ten held out of two tasks, one text, no probes."""
    found = Judging(SETTINGS, seed=0)
    found.begin([msgspec.structs.replace(of_task("anchor", 90, 1)[0], id="anchor-2")], evaluate(0.5))
    hold_out(found, [*of_task("a", 0, 5), *of_task("b", 10, 5)])
    return found


def ids(samples) -> list[str]:
    return [sample.id for sample in samples]


def test_the_newest_are_recent_and_the_others_older(judging, of_task):
    assert ids(judging.recent) == ["0-11-0", "0-12-0", "0-13-0", "0-14-0"]
    assert sorted(ids(judging.older.samples)) == ["0-0-0", "0-1-0", "0-10-0", "0-2-0", "0-3-0", "0-4-0"]
    hold_out(judging, of_task("c", 20, 4))
    assert {sample.task for sample in judging.recent} == {"c"}
    # Half of the older ones are now of the other task: each has its share.
    assert sorted(sample.task for sample in judging.older.samples) == ["a"] * 3 + ["b"] * 3


def test_in_a_few_versions_all_of_it_is_judged_and_no_version_judges_more_than_allowed(judging):
    seen = set()
    for version in range(1, 6):
        looked_at = judging.look({"a"})
        assert len(looked_at) == len({*ids(looked_at)}) == 5
        seen |= {*ids(looked_at)}
        judging.note(dict.fromkeys(ids(looked_at), 1.0), version, accepted=True)
    assert seen == {*ids(judging.recent), *ids(judging.older.samples), "anchor-2"}


def test_each_slice_is_looked_at_before_any_is_looked_at_twice(judging):
    slices = judging.slices(dict.fromkeys(ids(judging.look({"a"})), 1.0), {}, (), {"a"})
    assert {slice.name for slice in slices} == {"recent:b", "older:a", "older:b", "general"}
    few = Judging(msgspec.structs.replace(SETTINGS, judged_samples=1), seed=0)
    few.load(judging.state(), judging.recent, judging.older.samples, [], judging._general, evaluate())
    # If there is room for one only: of what is learnt.
    assert [sample.task for sample in few.look({"a"})] == ["a"]
    assert [sample.task for sample in few.look({"b"})] == ["b"]


def test_probes_are_judged_every_time_and_on_top(judging, of_task):
    judging.add_probes(of_task("must", 30, 3), evaluate(2.0))
    looked_at = judging.look({"a"})
    assert ids(looked_at)[:3] == ["0-30-0", "0-31-0", "0-32-0"]
    assert len(looked_at) == 8
    [slice] = [s for s in judging.slices(dict.fromkeys(ids(looked_at), 2.0), {}, (), ()) if s.name == "probe:must"]
    assert slice.last == slice.usual == {"0-30-0": 2.0, "0-31-0": 2.0, "0-32-0": 2.0}
    judging.remove(lambda sample: sample.event_id == "e0-31")
    assert ids(judging.probes) == ["0-30-0", "0-32-0"]
    assert "0-31-0" not in judging.state().known


def test_a_task_must_not_be_harmed_by_its_own_samples_and_may_for_a_while_by_others(judging, of_task):
    judging.add_probes(of_task("a", 30, 1), evaluate())
    names = ids([*judging.held_out, *judging._general])
    tolerances = {s.name: s.tolerance_nats for s in judging.slices(dict.fromkeys(names, 1.0), {}, (), {"b"})}
    s = SETTINGS
    assert tolerances == {
        "older:a": s.other_tasks_tolerance_nats,
        "older:b": s.held_out_tolerance_nats,
        "recent:b": s.held_out_tolerance_nats,
        "probe:a": s.held_out_tolerance_nats,
        "general": s.general_tolerance_nats,
    }
    lenient = Judging(msgspec.structs.replace(SETTINGS, held_out_tolerance_nats=100), seed=0)
    lenient.load(judging.state(), judging.recent, judging.older.samples, [], judging._general, evaluate())
    assert {s.tolerance_nats for s in lenient.slices(dict.fromkeys(names, 1.0), {}, (), ())} == {100, 0.3}


def test_tasks_of_which_hardly_anything_comes_are_others(of_task):
    assert main_tasks([*of_task("a", 0, 6), *of_task("b", 10, 2)]) == {"a", "b"}
    assert main_tasks([*of_task("a", 0, 7), *of_task("b", 10, 1)]) == {"a"}
    assert main_tasks(of_task("a", 0, 1)) == {"a"}


def test_what_has_no_finite_loss_is_not_judged_by(judging, of_task):
    hold_out(judging, of_task("c", 20, 1), float("nan"))
    judging.add_probes(of_task("d", 21, 1), evaluate(float("inf")))
    assert not {"c", "d"} & {sample.task for sample in (*judging.recent, *judging.probes)}


def test_the_usual_moves_slowly_and_more_slowly_where_nothing_was_let_in(judging):
    judging.note({"0-14-0": 2.0, "gone": 1.0}, 7, accepted=True)
    assert judging.state().known["0-14-0"] == Known(last=2.0, usual=pytest.approx(1.1), version=7)
    judging.note({"0-13-0": 2.0}, 8, accepted=False)
    assert judging.state().known["0-13-0"] == Known(last=2.0, usual=pytest.approx(1.03), version=8)
    assert "gone" not in judging.state().known


def test_a_hundred_small_losses_are_a_large_one(judging):
    """Each version loses a hundredth of the tolerance's worth more than what is usual can follow."""
    tasks = {"a", "b"}
    names, loss, version = ids(judging.older.samples), 1.0, 0
    while version < 100:
        version += 1
        loss += 0.05
        slices = judging.slices(dict.fromkeys(names, loss), {}, (), tasks)
        if any(is_suspect(slice, SETTINGS) for slice in slices):
            break
        judging.note(dict.fromkeys(names, loss), version, accepted=True)
    assert 5 < version < 20


def test_a_line_that_lets_nothing_in_does_not_stand_still_for_ever(judging):
    """It is at 1.5 and used to be at 1.0; what comes would lead to 1.6."""
    names, version = ids(judging.older.samples), 0
    while version < 100:
        version += 1
        slices = judging.slices(dict.fromkeys(names, 1.6), {}, (), {"a", "b"})
        if not any(is_suspect(slice, SETTINGS) for slice in slices):
            break
        judging.note(dict.fromkeys(names, 1.5), version, accepted=False)
    assert 15 < version < 60


def test_the_state_comes_back(judging, of_task):
    judging.add_probes(of_task("must", 30, 2), evaluate())
    judging.note(dict.fromkeys(ids(judging.look({"a"})), 1.25), 3, accepted=True)
    state = msgspec.json.decode(msgspec.json.encode(judging.state()), type=JudgingState)
    other = Judging(SETTINGS, seed=0)

    def unasked(samples):
        assert not samples
        return {}

    other.load(state, judging.recent, judging.older.samples, judging.probes, judging._general, unasked)
    assert other.state() == judging.state()
    assert other.look({"b"}) == judging.look({"b"})
    hold_out(other, of_task("c", 20, 3))
    hold_out(judging, of_task("c", 20, 3))
    assert other.state() == judging.state()


def test_with_smaller_settings_the_rest_is_let_go(judging):
    smaller = Judging(msgspec.structs.replace(SETTINGS, recent_capacity=1, older_capacity=2), seed=0)
    smaller.load(judging.state(), judging.recent, judging.older.samples, [], [], evaluate())
    assert (len(smaller.recent), len(smaller.older)) == (1, 2)
    assert smaller.state().known.keys() == {*ids(smaller.recent), *ids(smaller.older.samples)}


@pytest.fixture
def labelled(new_sample):
    def make(label: str, first: int, number: int):
        samples = [new_sample(n, task="a", until_known=False) for n in range(first, first + number)]
        return [msgspec.structs.replace(s, messages=(s.messages[0], Message("assistant", label))) for s in samples]

    return make


@pytest.fixture
def of_labels(labelled):
    """Held out: five of x, which is known well, two of y, which is not."""
    found = Judging(msgspec.structs.replace(SETTINGS, recent_capacity=20), seed=0)
    hold_out(found, labelled("x", 0, 5), 0.2)
    hold_out(found, labelled("y", 10, 2), 1.5)
    return found


def claim_of(judging, samples, loss=2.0, **how):
    return judging.claim("a", samples, dict.fromkeys(ids(samples), loss), judging.last_losses, **how)


def test_what_comes_is_held_against_what_is_held_out_with_the_same_answer(of_labels, labelled):
    came = [*labelled("x", 20, 2), *labelled("y", 30, 1), *labelled("z", 40, 1)]
    claim = claim_of(of_labels, came)
    assert [*claim.new] == ["0-20-0", "0-21-0"]  # y is not known well, z not at all
    assert claim.expected == {"0-20-0": 0.2, "0-21-0": 0.2}
    assert claim.beside == {f"0-{number}-0": pytest.approx(0.0) for number in range(5)}
    assert (claim.bound, claim.is_suspected) == (pytest.approx(1.0), False)
    assert claim_of(of_labels, labelled("z", 40, 3)) is None


def test_under_suspicion_all_that_is_held_out_counts_and_the_tolerance_grows(of_labels, labelled):
    for _ in range(100):
        of_labels.note_claims({"a"}, {"a"})
    came = [*labelled("x", 20, 1), *labelled("y", 30, 1)]
    claim = claim_of(of_labels, came)
    assert claim.is_suspected
    assert claim.expected == {"0-20-0": 0.2, "0-30-0": 1.5}
    assert claim.patience_nats == pytest.approx(0.5)
    state = of_labels.state()
    assert state.suspected == {"a": 100}
    for _ in range(101):
        of_labels.note_claims({"a"}, ())
    assert of_labels.state().suspected is msgspec.UNSET
    assert not claim_of(of_labels, labelled("x", 20, 1)).is_suspected
    for_its_company = claim_of(of_labels, came, is_suspected=True)
    assert (for_its_company.is_suspected, for_its_company.expected) == (True, claim.expected)


def test_of_too_little_or_switched_off_nothing_is_claimed(labelled, of_labels):
    few = Judging(SETTINGS, seed=0)
    hold_out(few, labelled("x", 0, 4), 0.2)
    assert claim_of(few, labelled("x", 20, 2)) is None
    off = Judging(msgspec.structs.replace(SETTINGS, known_nats=0), seed=0)
    off.load(of_labels.state(), of_labels.recent, of_labels.older.samples, (), (), evaluate())
    assert claim_of(off, labelled("x", 20, 2)) is None


def test_a_single_sample_of_an_answer_is_not_enough_to_know_it_well(of_labels, labelled):
    hold_out(of_labels, labelled("z", 50, 1), 0.1)
    assert claim_of(of_labels, labelled("z", 60, 2)) is None
    hold_out(of_labels, labelled("z", 51, 1), 0.5)
    claim = claim_of(of_labels, labelled("z", 60, 2))
    assert claim.expected == {"0-60-0": pytest.approx(0.3), "0-61-0": pytest.approx(0.3)}
    assert claim.beside["0-50-0"] == pytest.approx(-0.4)


def test_of_each_label_two_are_held_out_while_there_is_room(new_trainer, new_record, new_sample):
    """Of answers that come again and again; and of all labels most samples are learnt."""

    def held_out(num_labels, **gate):
        settings = Settings(
            gate=GateSettings(held_out_ratio=1e-6, general_tolerance_nats=100, general_drift_nats=100, **gate),
            trainer=TrainerSettings(batch_size=8, anchor_prompts=("Who are you?", "What is rain?", "Why?")),
        )
        trainer = new_trainer(settings)
        trainer.begin()
        for number in range(16 * num_labels):
            sample = new_sample(number, task="a", until_known=False)
            label = str(number % num_labels)
            messages = (sample.messages[0], Message("assistant", label if num_labels > 1 else f"text {number}"))
            trainer.take(new_record(number, msgspec.structs.replace(sample, messages=messages)))
            if trainer.ready() == "size":
                trainer.learn("size", epoch=1)
        return Counter(sample.messages[1].content for sample in trainer.schooling.judging.held_out)

    assert held_out(4) == {"0": 2, "1": 2, "2": 2, "3": 2}
    assert held_out(4, recent_capacity=3, older_capacity=0).total() == 3
    assert held_out(1) == {}
