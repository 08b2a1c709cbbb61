"""Of which tasks of a micro-batch it is asked whether they contradict."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lifelong.learning.gate import Claim, GateSettings, contradicts
from lifelong.trainer.claims import claims_of

SETTINGS = GateSettings()


def judging_of(losses: dict[str, float]) -> SimpleNamespace:
    """Four of each task came, with these losses; six of each are held out at .2, with answers that are not known well
    where the loss is below 0."""

    def claim(task, new, before, known, *, is_suspected=False):
        if losses[task] < 0 and not is_suspected:
            return None
        beside = {f"{task}{number}": 0.0 for number in range(6)}
        came = {sample.id: abs(losses[task]) for sample in new}
        tolerance = SETTINGS.contradiction_nats
        return Claim(task, tolerance, came, dict.fromkeys(came, 0.2), beside, is_suspected=is_suspected)

    return SimpleNamespace(claim=claim, is_suspected=lambda task: False, of_task=lambda task: [], last_losses={})


@pytest.mark.parametrize(
    ("losses", "contradicting"),
    [
        ({"a": 2.0, "b": 0.8}, ["a", "b"]),
        ({"a": 2.0, "b": 0.5}, ["a"]),
        ({"a": 0.8, "b": 0.8}, []),
        ({"a": 2.0, "b": -0.8}, ["a", "b"]),
        ({"a": 2.0, "b": -0.5}, ["a"]),
        ({"a": 0.8, "b": -2.0}, []),
    ],
)
def test_beside_one_that_contradicts_half_the_size_is_enough(new_sample, losses, contradicting):
    new = [new_sample(n, task=task, until_known=False) for n, task in enumerate("aaaabbbb")]
    claims = claims_of(new, {}, judging_of(losses), SETTINGS, lambda samples: {})
    assert sorted(claim.task for claim in claims if contradicts(claim, SETTINGS)) == contradicting


@pytest.mark.parametrize(("losses", "contradicting"), [({"a": 1.3, "b": 1.3}, ["a", "b"]), ({"a": 0.9, "b": 0.9}, [])])
def test_two_of_each_task_contradict_together(new_sample, losses, contradicting):
    new = [new_sample(n, task=task, until_known=False) for n, task in enumerate("aabb")]
    claims = claims_of(new, {}, judging_of(losses), SETTINGS, lambda samples: {})
    assert sorted(claim.task for claim in claims if contradicts(claim, SETTINGS)) == contradicting


def test_what_looks_likely_is_not_measured(new_sample):
    def measured(samples):
        raise AssertionError("it costs a pass")

    new = [new_sample(n, task=task, until_known=False) for n, task in enumerate("aaaabbbb")]
    assert claims_of(new, {}, judging_of({"a": 0.5, "b": 0.5}), SETTINGS, measured) == []
