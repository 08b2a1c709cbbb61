"""What the gate lets pass, with its numbers."""

from __future__ import annotations

import math

import msgspec
import pytest

from lifelong.learning.gate import Evidence, GateSettings, judge

SETTINGS = GateSettings(
    new_tolerance_nats=0.05, held_out_tolerance_nats=0.2, general_tolerance_nats=0.1, general_drift_nats=0.5
)
GOOD = Evidence(
    new_before={"n": 3.0},
    new_after={"n": 0.1},
    held_out_before={"a1": 1.0, "a2": 2.0, "b1": 1.0},
    held_out_after={"a1": 1.1, "a2": 2.1, "b1": 0.5},
    general_before={"g1": 1.0, "g2": 1.2},
    general_after={"g1": 1.05, "g2": 1.2},
    general_base={"g1": 0.9, "g2": 1.0},
)


@pytest.fixture
def held_out(new_sample):
    return [
        msgspec.structs.replace(new_sample(number), id=name, task=name[0])
        for number, name in enumerate(("a1", "a2", "b1"))
    ]


def test_what_does_no_harm_passes(held_out):
    verdict = judge(GOOD, held_out, SETTINGS)
    assert verdict.accepted
    assert verdict.scores["new_before"] == 3.0
    assert verdict.scores["held_out_after:a"] == pytest.approx(1.6)
    assert verdict.scores["general_base"] == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"new_after": {"n": 3.1}}, "new samples became less likely: 3.100, at most 3.050"),
        # One task may not pay for another: b became much better.
        ({"held_out_after": {"a1": 1.3, "a2": 2.2, "b1": 0.0}}, "held-out task a became less likely"),
        ({"general_after": {"g1": 1.3, "g2": 1.2}}, "general text became less likely: 1.250, at most 1.200"),
        # In small steps.
        ({"general_base": {"g1": 0.5, "g2": 0.5}, "general_before": {"g1": 1.0, "g2": 1.05}}, "drifted from the base"),
        ({"new_after": {"n": math.nan}}, "new samples became less likely: nan"),
        ({"general_after": {"g1": math.inf, "g2": 1.0}}, "general text became less likely"),
    ],
)
def test_harm_is_rejected_with_its_reason(held_out, changes, reason):
    verdict = judge(msgspec.structs.replace(GOOD, **changes), held_out, SETTINGS)
    assert not verdict.accepted
    assert reason in verdict.reason


def test_whoever_is_beyond_the_drift_may_come_back(held_out):
    far = {"general_before": {"g": 3.0}, "general_after": {"g": 2.9}, "general_base": {"g": 1.0}}
    assert judge(msgspec.structs.replace(GOOD, **far), held_out, SETTINGS).accepted


def test_without_anything_held_out_the_rest_is_judged():
    bare = msgspec.structs.replace(GOOD, held_out_before={}, held_out_after={}, general_before={}, general_after={})
    verdict = judge(bare, [], SETTINGS)
    assert verdict.accepted
    assert "held_out_before" not in verdict.scores
