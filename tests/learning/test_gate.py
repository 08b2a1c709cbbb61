"""What the gate lets pass, with its numbers."""

from __future__ import annotations

import math

import msgspec
import pytest

from lifelong.learning.gate import (
    Claim,
    GateSettings,
    Slice,
    are_of_one_hand,
    contradicts,
    enough_pairs,
    is_suspect,
    judge,
    looks_wrong,
    of_company,
    together,
)
from lifelong.learning.replay import randbelow

SETTINGS = GateSettings(
    new_tolerance_nats=0.05, held_out_tolerance_nats=0.2, general_tolerance_nats=0.1, general_drift_nats=0.5
)
NEW_BEFORE, NEW_AFTER = {"n": 3.0}, {"n": 0.1}


def of(*losses: float) -> dict[str, float]:
    return {f"s{number}": loss for number, loss in enumerate(losses)}


def held_out(after, before=None, usual=None, last=None, **fields) -> Slice:
    before = of(*[1.0] * len(after)) if before is None else before
    return Slice("older:a", fields.pop("tolerance_nats", 0.2), last or before, usual or before, after, before, **fields)


def verdict_of(*slices: Slice, settings: GateSettings = SETTINGS, share: float = 1.0):
    return judge(NEW_BEFORE, NEW_AFTER, slices, settings, share)


def test_what_does_no_harm_passes_with_its_numbers():
    looked_at = msgspec.structs.replace(held_out(of(1.1, 1.2)), name="recent:b", before=None)
    assert not is_suspect(looked_at, SETTINGS)
    verdict = verdict_of(looked_at, held_out(of(0.9, 1.0, 0.8, 0.9, 1.0)))
    assert verdict.accepted
    assert verdict.scores["new_before"] == 3.0
    assert verdict.scores["after:recent:b"] == pytest.approx(1.15)
    assert verdict.scores["was:recent:b"] == pytest.approx(1.0)
    assert (verdict.scores["judged:recent:b"], verdict.scores["judged:older:a"]) == (2, 5)
    assert "p:recent:b" not in verdict.scores
    assert verdict.scores["p:older:a"] == 1.0
    assert verdict.scores["recent_after"] == pytest.approx(1.15)


def test_one_task_may_not_pay_for_another():
    better = msgspec.structs.replace(held_out(of(*[0.1] * 9)), name="older:b")
    verdict = verdict_of(better, held_out(of(*[1.5] * 6)))
    assert verdict.reason == "older:a became less likely: 1.500, at most 1.200 (p 0.016, 6 samples)"
    assert verdict.scores["p:older:a"] == pytest.approx(1 / 64)


def test_large_and_uncertain_is_not_enough():
    """A mean of 0.4 above what it was, of one sample out of six that went astray."""
    astray = held_out(of(4.0, 0.9, 0.9, 0.9, 0.9, 0.8))
    assert is_suspect(astray, SETTINGS)
    verdict = verdict_of(astray)
    assert verdict.accepted
    assert verdict.scores["p:older:a"] > 0.05
    assert verdict.scores["after:older:a"] - verdict.scores["was:older:a"] == pytest.approx(0.4)
    assert not verdict_of(astray, settings=msgspec.structs.replace(SETTINGS, significance=1.0)).accepted


def test_certain_and_small_is_not_enough():
    small = held_out(of(*[1.1] * 12))
    assert not is_suspect(small, SETTINGS)
    verdict = verdict_of(small)
    assert verdict.accepted
    assert verdict.scores["p:older:a"] == pytest.approx(2**-12)


@pytest.mark.parametrize(("significance", "number"), [(1.0, 0), (0.5, 1), (0.05, 5), (0.01, 7)])
def test_with_fewer_pairs_nothing_could_be_significant(significance, number):
    assert enough_pairs(significance) == number
    assert 2.0**-number <= significance
    assert number == 0 or 2.0 ** -(number - 1) > significance


def test_of_too_few_the_size_alone_decides():
    few = msgspec.structs.replace(held_out(of(3.0, 1.0, 0.9, 0.9)), name="probe:a")
    assert not verdict_of(few).accepted
    assert verdict_of(msgspec.structs.replace(few, tolerance_nats=0.5)).accepted
    # Of what came in the stream one is always odd.
    assert verdict_of(msgspec.structs.replace(few, name="recent:a")).accepted


def test_what_was_lost_in_small_steps_is_lost():
    """Since the version before hardly anything; but it used to be 1.0."""
    drifted = held_out(of(*[1.25] * 6), of(*[1.2] * 6), usual=of(*[1.0] * 6))
    assert is_suspect(drifted, SETTINGS)
    assert "1.250, at most 1.200" in verdict_of(drifted).reason


def test_whoever_does_not_make_it_worse_is_not_blocked():
    back = held_out(of(*[1.4] * 6), of(*[1.5] * 6), usual=of(*[1.0] * 6))
    assert is_suspect(back, SETTINGS)
    assert verdict_of(back).accepted
    # Nor whose difference is chance.
    wavering = held_out(of(1.4, 1.6, 1.4, 1.6, 1.4, 1.61), of(*[1.5] * 6), usual=of(*[1.0] * 6))
    assert verdict_of(wavering).accepted


def test_what_has_become_better_is_not_lost_at_once_for_being_unusual():
    """It is usually 2.0, lately 1.0, and now 1.8."""
    after = held_out(of(*[1.8] * 6), of(*[1.0] * 6), usual=of(*[2.0] * 6))
    assert is_suspect(msgspec.structs.replace(after, before=None), SETTINGS)
    assert not verdict_of(after).accepted


def test_a_part_has_its_share_of_the_tolerance():
    part = held_out(of(*[1.1] * 6))
    assert verdict_of(part).accepted
    assert not verdict_of(part, share=0.25).accepted


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_rejected_and_not_written(bad):
    verdict = judge({"n": 3.0}, {"n": bad}, [], SETTINGS)
    assert "new samples became less likely" in verdict.reason
    broken = held_out(of(1.0, bad, 1.0, 1.0, 1.0, 1.0))
    assert is_suspect(broken, SETTINGS)
    verdict = verdict_of(broken)
    assert not verdict.accepted
    assert "older:a became less likely" in verdict.reason
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=type(verdict)) == verdict


def test_new_samples_must_not_become_less_likely():
    before = of(*[3.0] * 6)
    assert judge(before, of(*[3.04] * 6), [], SETTINGS).accepted
    assert not judge(before, of(*[3.1] * 6), [], SETTINGS).accepted
    assert judge(before, of(2.6, 2.6, 2.6, 2.6, 2.6, 6.0), [], SETTINGS).accepted
    assert judge({}, {}, [], SETTINGS).accepted


def test_general_text_may_not_drift_from_the_base():
    same = of(*[1.0] * 6)
    near = held_out(of(*[1.45] * 6), of(*[1.4] * 6), base=same, tolerance_nats=9.0)
    assert not is_suspect(near, SETTINGS)
    far = held_out(of(*[1.55] * 6), of(*[1.4] * 6), base=same, tolerance_nats=9.0)
    assert is_suspect(far, SETTINGS)
    verdict = verdict_of(far)
    assert "drifted from the base: 1.550, at most 1.500" in verdict.reason
    assert verdict.scores["base:older:a"] == pytest.approx(1.0)
    # Whoever is beyond it may come back.
    assert verdict_of(held_out(of(*[2.9] * 6), of(*[3.0] * 6), base=same, tolerance_nats=9.0)).accepted


def test_a_falsely_rejected_version_is_rare():
    """Nothing has changed but for noise as large as the tolerance, 400 times."""

    def noise(trial: int, number: int) -> float:
        return sum(randbelow(1001, trial, number, part) / 1000 - 0.5 for part in range(12)) * 0.3

    rejected = 0
    for trial in range(400):
        before = of(*[1.0] * 8)
        after = of(*[1.0 + noise(trial, number) for number in range(8)])
        one = held_out(after, before, tolerance_nats=0.0)
        rejected += not verdict_of(one).accepted
    assert 4 <= rejected <= 36  # 5 % would be 20


def claim(new, held_out, **fields) -> Claim:
    """All with one answer."""
    expected = sum(held_out) / len(held_out)
    beside = {f"h{number}": loss - expected for number, loss in enumerate(held_out)}
    return Claim("a", fields.pop("tolerance_nats", 0.5), of(*new), dict.fromkeys(of(*new), expected), beside, **fields)


def of_claim(one: Claim):
    return judge(NEW_BEFORE, NEW_AFTER, [], SETTINGS, claims=[one])


def test_what_contradicts_what_is_known_well_is_rejected_and_named():
    wrong = claim([2.0, 1.9, 0.1, 2.2], [0.1, 0.2, 0.1, 0.3, 0.1, 0.2] * 2)
    assert contradicts(wrong, SETTINGS)
    assert wrong.unlikely == ["s0", "s1", "s3"]
    verdict = of_claim(wrong)
    assert (
        verdict.reason == "what came of a contradicts what is held out of it: 1.550, at most 0.667 (p 0.007, 4 samples)"
    )
    assert verdict.scores["new:a"] == pytest.approx(1.55)
    assert verdict.scores["expected:a"] == pytest.approx(1 / 6)
    assert verdict.scores["new_p:a"] == pytest.approx(13 / 1820)


def test_what_comes_beside_what_contradicts_contradicts_by_its_size_alone():
    wrong = claim([2.0, 1.9, 1.7, 2.2], [0.1, 0.2, 0.1, 0.3, 0.1, 0.2])
    few = claim([1.5, 0.9], [0.1, 0.2, 0.3])
    small = claim([0.4] * 2, [0.2] * 6)
    assert not contradicts(few, SETTINGS)
    assert not are_of_one_hand([few, small], SETTINGS)
    assert are_of_one_hand([few, small, wrong], SETTINGS)
    assert [contradicts(suspected(one), SETTINGS) for one in (few, small, wrong)] == [True, False, True]


def suspected(one: Claim) -> Claim:
    return msgspec.structs.replace(one, is_suspected=True)


def named(one: Claim, name: str) -> Claim:
    """As of another task, which has samples of its own."""
    new, expected, beside = ({name + key: x for key, x in of.items()} for of in (one.new, one.expected, one.beside))
    return msgspec.structs.replace(one, task=name, new=new, expected=expected, beside=beside)


@pytest.mark.parametrize(
    ("new", "looks"),
    [([0.8], True), ([0.6] * 2, True), ([0.6], False), ([0.4] * 4, False)],
    ids=["beyond", "half, certain", "half, by chance", "less"],
)
def test_what_looks_wrong_is_beyond_the_tolerance_or_beyond_half_of_it_and_rather_certain(new, looks):
    assert looks_wrong(claim(new, [0.1, 0.2, 0.3] * 2), SETTINGS) == looks


def test_of_answers_not_known_well_company_takes_a_test():
    narrow = claim([0.5, 0.4], [0.1, 0.2, 0.3] * 2)
    wide = suspected(claim([0.5, 0.4, 4.0, 4.2], [0.1, 0.2, 0.3] * 2))
    by_chance = suspected(claim([0.5, 0.4, 4.0], [0.1, 0.2, 0.3, 4.0, 5.0, 0.2]))
    assert of_company(narrow, wide, SETTINGS) == wide
    assert of_company(narrow, by_chance, SETTINGS) == suspected(narrow)
    assert of_company(None, by_chance, SETTINGS) is None
    assert of_company(None, None, SETTINGS) is None


@pytest.mark.parametrize(("loss", "is_together"), [(1.2, True), (0.6, False)])
def test_what_is_too_little_of_each_task_may_contradict_together(loss, is_together):
    few = [named(claim([loss, loss], [0.1, 0.2, 0.3] * 2), name) for name in "ab"]
    assert not any(contradicts(one, SETTINGS) for one in few)  # 1 of 28 ways is as bad
    assert are_of_one_hand(few, SETTINGS) == is_together


def test_a_task_that_is_right_is_let_in_though_all_together_contradict():
    wrong = named(claim([3.0, 3.0], [0.1, 0.2, 0.3] * 2), "a")
    right = named(claim([0.4, 0.42], [0.1, 0.2, 0.3] * 2), "b")
    assert not contradicts(wrong, SETTINGS)
    assert contradicts(together([wrong, right]), SETTINGS)
    assert [contradicts(suspected(one), SETTINGS) for one in (wrong, right)] == [True, False]


def test_half_as_much_is_enough_where_something_contradicted():
    one = claim([0.6] * 6, [0.2] * 6)
    assert not contradicts(one, SETTINGS)
    assert contradicts(msgspec.structs.replace(one, is_suspected=True), SETTINGS)


def test_what_is_a_little_less_likely_does_not_contradict():
    assert of_claim(claim([0.6] * 6, [0.2] * 6)).accepted


def test_what_is_as_likely_as_its_own_answer_does_not_contradict():
    """That answer is less likely than others: it came later."""
    late = msgspec.structs.replace(claim([1.2] * 6, [0.1] * 6), expected=of(*[0.9] * 6))
    assert of_claim(late).accepted


def test_of_what_contradicts_only_what_is_less_likely_than_its_own_answer_is_refused():
    one = claim([3.0, 3.1, 2.9, 0.8], [0.1] * 20)
    one = msgspec.structs.replace(one, expected={**one.expected, "s3": 0.9})
    assert contradicts(one, SETTINGS)
    assert one.unlikely == ["s0", "s1", "s2"]


def test_what_may_be_chance_does_not_contradict_unless_it_is_suspected():
    """One that is odd, among six of which another was."""
    odd = claim([0.1, 3.0], [0.1, 0.2, 0.1, 2.5, 0.1, 0.2])
    assert of_claim(odd).accepted
    assert not of_claim(msgspec.structs.replace(odd, is_suspected=True)).accepted


def test_a_claim_that_is_no_number_contradicts():
    broken = claim([math.nan, 0.05], [0.1] * 6)
    assert not of_claim(broken).accepted
    assert broken.unlikely == ["s0"]
