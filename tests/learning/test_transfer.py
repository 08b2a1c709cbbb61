"""On a made-up sequence of tasks the measures of the stream are those of the matrix; and what only a stream has."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.contracts.samples import Sample
from lifelong.learning.forgetting import summarise
from lifelong.learning.transfer import Transfer, TransferState

#      task:  a     b     c      nats per token
UNTRAINED = {"a": 3.0, "b": 2.5, "c": 4.0}
LOSSES = [
    {"a": 0.9, "b": 2.2, "c": 3.1},  # after a
    {"a": 1.3, "b": 0.8, "c": 2.7},  # after b
    {"a": 1.4, "b": 0.7, "c": 0.7},  # after c
]


def held_out_of(task: str, number: int = 0) -> Sample:
    return Sample(id=f"{task}{number}", event_id=f"{task}{number}", event_time=0.0, task=task, text="x")


def by_id(samples: list[Sample], losses: dict[str, float]) -> dict[str, float]:
    # Two samples of a task differ, by as much in each version.
    return {sample.id: losses[sample.task] + (0.25 if sample.id.endswith("1") else 0.0) for sample in samples}


def run(losses: list[dict[str, float]], untrained: dict[str, float], order: list[str]) -> Transfer:
    held_out = [held_out_of(task, number) for task in untrained for number in (0, 1)]
    transfer, before = Transfer(10), untrained
    for task, after in zip(order, losses, strict=True):
        forward = {task: untrained[task] - before[task]} if transfer.is_new(task) else {}
        transfer.saw([task], held_out, by_id(held_out, before), by_id(held_out, after), forward)
        before = after
    return transfer


def test_by_hand():
    transfer = run(LOSSES, UNTRAINED, ["a", "b", "c"])
    assert transfer.forgetting == pytest.approx({"a": 0.5, "b": -0.1, "c": -2.0})
    assert transfer.backward == pytest.approx({"a": -0.5, "b": 0.1, "c": 0.0})
    assert transfer.forward == pytest.approx({"b": 0.3, "c": 1.3})
    assert transfer.learnt_losses == pytest.approx({"a": 1.025, "b": 0.925, "c": 0.825})


@st.composite
def runs(draw):
    """Losses that fall below all that were before when a task is learnt."""
    num_tasks = draw(st.integers(2, 5))
    tasks = [chr(ord("a") + n) for n in range(num_tasks)]
    high, low = st.floats(2, 5), st.floats(0.1, 2)
    untrained = dict.fromkeys(tasks, 5.0)
    losses = [{task: draw(high if i < j else low) for j, task in enumerate(tasks)} for i in range(num_tasks)]
    return tasks, untrained, losses


@given(runs())
def test_as_the_matrix_has_it(made):
    tasks, untrained, losses = made
    # The two samples of a task: its mean is an eighth higher.
    matrix = [[-(row[task] + 0.125) for task in tasks] for row in losses]
    expected = summarise(matrix, untrained=[-(untrained[task] + 0.125) for task in tasks])
    found = run(losses, untrained, tasks).means()
    assert found["forgetting_nats"] == pytest.approx(expected.forgetting)
    assert found["backward_transfer_nats"] == pytest.approx(expected.backward_transfer)
    assert found["forward_transfer_nats"] == pytest.approx(expected.forward_transfer)
    assert -found["plasticity_loss_nats"] == pytest.approx(expected.plasticity)
    assert -found["anytime_loss_nats"] == pytest.approx(expected.anytime_average)


def test_a_task_that_returns_counts_from_its_last_visit():
    losses = [{"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 1.0}, {"a": 0.5, "b": 1.5}, {"a": 0.9, "b": 1.2}]
    transfer = run(losses, {"a": 4.0, "b": 4.0}, ["a", "b", "a", "b"])
    assert transfer.backward["a"] == pytest.approx(-0.4)
    assert transfer.forgetting["a"] == pytest.approx(0.4)
    assert transfer.forgetting["b"] == pytest.approx(0.2), "it was 1.0 once"
    assert transfer.means()["backward_transfer_nats"] == pytest.approx(-0.4), "b was learnt just now"


def test_what_is_held_out_later_is_no_forgetting():
    """A hard sample raises the mean of its slice, which nothing was forgotten of."""
    easy, hard = held_out_of("a", 0), held_out_of("a", 2)
    transfer = Transfer(10)
    transfer.saw(["a"], [easy], {"a0": 1.0}, {"a0": 0.5}, {})
    transfer.saw(["b"], [easy, hard], {"a0": 0.5, "a2": 4.0}, {"a0": 0.5, "a2": 4.0}, {})
    assert transfer.forgetting == {"a": 0.0}
    assert transfer.backward == {"a": 0.0}
    transfer.keep({"a2"})
    transfer.saw(["b"], [hard], {"a2": 4.0}, {"a2": 4.5}, {})
    assert transfer.forgetting == {"a": 0.5}


def test_probes_can_be_forgotten_but_are_never_learnt():
    transfer = Transfer(10)
    transfer.saw(["a"], [held_out_of("probe:x")], {"probe:x0": 1.0}, {"probe:x0": 1.5}, {})
    assert transfer.forgetting == {"probe:x": 0.5}
    assert (transfer.backward, transfer.learnt_losses, transfer.anytime) == ({}, {}, None)
    assert transfer.means() == {"forgetting_nats": 0.5}


def test_to_what_was_learnt_before_it_was_measured_there_is_no_transfer():
    transfer = Transfer(3)
    assert not transfer.is_new("a"), "nothing was learnt that could help"
    transfer.knew(["a", "b"])
    assert [transfer.is_new(task) for task in "abc"] == [False, False, True]
    transfer.saw(["c", "d"], [], {}, {}, {"c": 0.5, "d": 0.5})
    assert transfer.forward == {"c": 0.5}, "there is room for three"
    assert not transfer.is_new("d")


def test_what_is_not_looked_at_is_as_it_was():
    """Half of each slice under each version, in turn."""
    samples = [held_out_of("a", 0), held_out_of("a", 1)]
    transfer = Transfer(10)
    transfer.saw(["b"], samples, {"a0": 3.0, "a1": 3.0}, {"a0": 3.0}, {})
    assert transfer.forgetting == {"a": 0.0}
    transfer.saw(["a"], samples, {}, {"a1": 1.0}, {})
    assert transfer.learnt_losses == {"a": 2.0}, "what was learnt of the other is not known yet"
    transfer.saw(["b"], samples, {}, {"a0": 1.5}, {})
    assert transfer.learnt_losses == {"a": 1.25}, "known later, from when it is known"
    transfer.saw(["b"], samples, {}, {"a0": 2.0}, {})
    assert transfer.learnt_losses == {"a": 1.25}
    assert transfer.backward == {"a": -0.25}
    assert transfer.forgetting == {"a": 0.25}


def test_a_loss_that_is_no_number_does_not_spoil_the_state():
    transfer = Transfer(10)
    samples = [held_out_of("a", 0), held_out_of("a", 2)]
    nan = float("nan")
    transfer.saw(["a"], samples, {"a0": nan, "a2": 1.0}, {"a0": 1.0, "a2": 2.0}, {})
    assert transfer.forgetting == {"a": 1.0}
    transfer.saw(["a"], samples, {"a0": 1.0, "a2": 2.0}, {"a0": 1.0, "a2": nan}, {})
    assert transfer.forgetting == {"a": 0.5}, "one of them rose by 1 and is as it was last"


def test_the_state_goes_through_json():
    transfer, restored = run(LOSSES, UNTRAINED, ["a", "b", "c"]), Transfer(10)
    restored.load(msgspec.json.decode(msgspec.json.encode(transfer.state()), type=TransferState))
    assert restored.state() == transfer.state()
    assert restored.means() == transfer.means()
