"""Answers meet the labels that come later."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.unit.collector.test_app import World

from lifelong.collector.answers import Labelled, _answer, compare, labelled
from lifelong.collector.app import CollectorApp
from lifelong.contracts import metrics as names
from lifelong.contracts.codec import encode
from lifelong.contracts.events import Fact, Observation
from lifelong.contracts.requests import Output
from lifelong.errors import UnreachableError


class Kept:
    """Answers by id; ``None``: the store is away."""

    def __init__(self, answers: dict[str, str] | None) -> None:
        self.found = answers

    def answers(self, output_ids: Sequence[str]) -> list[str | None]:
        if self.found is None:
            raise UnreachableError("redis", "away")
        return [self.found.get(output_id) for output_id in output_ids]


def collector_with(world: World, answers: dict[str, str] | None) -> CollectorApp:
    collector = world.collector()
    collector._answers = Kept(answers)
    return collector


def counted(world: World, task: str) -> tuple[float, float]:
    correct, wrong = (world.metrics.value(names.TASK_ANSWERS, task=task, result=r) for r in ("correct", "wrong"))
    return correct, wrong


@pytest.mark.parametrize("is_whole", [True, False], ids=["with the input", "in two parts"])
def test_each_label_is_compared_with_its_answer_once(is_whole: bool) -> None:
    world = World()
    for number, label in enumerate(["spam", "ham", "ham", "ham"]):
        name, text = f"out-{number}", f"Message {number}"
        if is_whole:
            world.publish(Observation("mail", text, label, name), f"e{number}")
        else:
            world.publish(Observation("mail", input=text, observation_id=name), f"i{number}")
            world.publish(Observation("mail", label=label, observation_id=name), f"l{number}")
    # The same event again is a duplicate.
    world.publish(Observation("mail", "Message 0", "spam", "out-0"), "e0" if is_whole else "i0")
    world.publish(Observation("mail", "Message 9", "spam"), "e9")
    world.publish(Fact(subject="thing", relation="colour", object="red"), "f1")
    collector = collector_with(world, {"out-0": "spam", "out-1": " ham\n", "out-2": "spam"})
    world.work(collector)
    assert counted(world, "mail") == (2, 1)


def test_a_label_alone_is_enough() -> None:
    world = World()
    world.publish(Observation("mail", label="spam", observation_id="out-0"), "l0")
    world.work(collector_with(world, {"out-0": "ham"}))
    assert counted(world, "mail") == (0, 1)


def test_while_the_answers_are_away_the_stream_goes_on() -> None:
    world = World()
    world.publish(Observation("mail", "Message", "spam", "out-0"), "e0")
    world.work(collector_with(world, None))
    assert counted(world, "mail") == (0, 0)
    assert world.outcomes() == ["sample"]


def test_of_many_tasks_the_later_ones_are_one() -> None:
    world = World()
    for number in range(40):
        world.publish(Observation(f"task {number}", f"Message {number}", "spam", "out-0"), f"e{number}")
    world.work(collector_with(world, {"out-0": "spam"}))
    assert counted(world, "task 29") == (1, 0)
    assert counted(world, "task 30") == (0, 0)
    assert counted(world, "other") == (10, 0)


def test_only_a_label_with_an_id_can_be_compared() -> None:
    assert labelled(Observation("mail", "Message", "spam")) is None
    assert labelled(Observation("mail", "Message", observation_id="out-0")) is None
    assert labelled(Observation("mail", label="spam", observation_id="out-0")) == Labelled("mail", "out-0", "spam")
    assert compare(Kept({}), [Labelled("mail", "out-0", "spam")]) == []


def test_what_failed_is_no_answer() -> None:
    output = Output("out-0", "r", "lifelong@1", "tiny", (), "spam", "stop", 0.0)
    assert _answer(encode(output)) == "spam"
    assert _answer(encode(Output("out-0", "r", "", "", (), "spam", "error", 0.0, error="too long"))) is None
    assert _answer(b"{") is None
    assert _answer(None) is None
