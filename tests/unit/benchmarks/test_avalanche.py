"""Avalanche's strategies on a random model: that they are theirs, do something, and are measured like ours.

Most of it needs Avalanche, which is no part of what is installed: ``make avalanche``.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.learning import __main__ as program
from benchmarks.learning import avalanche_run, report
from benchmarks.learning.avalanche_run import AvalancheMissingError, SampleLosses, Watch, weighted_mean
from benchmarks.learning.check import check
from benchmarks.learning.exams import LabelExam
from benchmarks.learning.results import load_all, path_of, save
from benchmarks.learning.run import Phase, Result, Stream, run, settings_of
from benchmarks.learning.strategies import STRATEGIES, Avalanche, Strategy
from benchmarks.learning.streams import QUICK, Size
from packaging.requirements import Requirement
from tests.programs import missing

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.learning.losses import evaluate
from lifelong.model.base import load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.model.tiny import tiny_random_model

ROOT = Path(__file__).parents[3]
LABELS = {"colour": ("red", "blue"), "size": ("large", "tiny")}
NAMES = [name for name, strategy in STRATEGIES.items() if strategy.avalanche]


def samples(task: str, first: int, count: int) -> list[Sample]:
    return [
        Sample(
            id=f"{task}-{number}",
            event_id="",
            event_time=0.0,
            task=task,
            messages=(
                Message("user", f"Text: {task} {number}\nLabel:"),
                Message("assistant", LABELS[task][number % 2]),
            ),
            weight=1.0 + number % 3,
        )
        for number in range(first, first + count)
    ]


def stream(per_task: int = 16) -> Stream:
    text = Sample(id="general", event_id="", event_time=0.0, task="general", text="It rains in Spain, mainly.")
    every = [sample for task in LABELS for sample in samples(task, 0, 48)]
    return Stream(
        "S1",
        [Phase(task, samples(task, 0, per_task)) for task in LABELS],
        {task: samples(task, 40, 8) for task in LABELS},
        [text],
        lambda learner: LabelExam(learner, every, 256),
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    folder = tmp_path_factory.mktemp("model")
    tiny_random_model(0, folder)
    return ModelSettings(name=str(folder), dtype="float32", device="cpu")


@pytest.fixture
def learner(model: ModelSettings) -> AdapterLearner:
    return AdapterLearner(load_base(model), AdapterSettings(), seed=0, max_tokens=64)


@pytest.fixture
def avalanche() -> None:
    try:
        avalanche_run.require(Avalanche("EWC", {}).release)
    except AvalancheMissingError as error:
        missing(str(error))


def made(name: str, model: ModelSettings, of: Stream | None = None, strategy: Strategy | None = None) -> Result:
    return avalanche_run.run(of or stream(), name, strategy or STRATEGIES[name], 0, model)


def ewc(**arguments: float | str) -> Strategy:
    return dataclasses.replace(STRATEGIES["avalanche-ewc"], avalanche=Avalanche("EWC", arguments))


# Without Avalanche


def test_its_packages_are_none_of_ours() -> None:
    ours, theirs = (
        dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("lock.txt", "avalanche.txt")
    )
    assert "torch" in ours
    # Of a package in both there would be two releases, and which one is imported would depend on the path.
    assert not ours.keys() & theirs.keys()
    releases = {avalanche.release for name in NAMES if (avalanche := STRATEGIES[name].avalanche)}
    assert releases == {theirs["avalanche-lib"]}


def test_the_module_gives_the_losses_of_samples(learner: AdapterLearner) -> None:
    some = samples("colour", 0, 9)
    # In several passes, for so few tokens are allowed in one.
    module = SampleLosses(learner, some, tokens_per_pass=64)
    places = [7, 0, 3, 4]
    expected = evaluate(learner, some, 512)
    loss_S = module(torch.tensor(places))
    assert loss_S.tolist() == pytest.approx([expected[some[place].id] for place in places], rel=1e-5)
    weight_S = torch.tensor([some[place].weight for place in places])
    mean = sum(expected[some[place].id] * some[place].weight for place in places) / weight_S.sum().item()
    assert weighted_mean(loss_S, weight_S).item() == pytest.approx(mean, rel=1e-5)
    # What learns, and nothing of the base.
    parameters = list(module.parameters())
    assert [id(p) for p in parameters] == [id(p) for p in learner.parameters.values()]
    weighted_mean(loss_S, weight_S).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


def test_settings_hold_what_avalanche_is_given(model: ModelSettings) -> None:
    found = settings_of(stream(), ewc(ewc_lambda=1.0), 0, model)
    assert found["avalanche"] == {"name": "EWC", "arguments": {"ewc_lambda": 1.0}, "release": "0.6.0"}
    assert found != settings_of(stream(), ewc(ewc_lambda=2.0), 0, model)
    # Results of the others stay as they are.
    assert "avalanche" not in settings_of(stream(), STRATEGIES["ewc"], 0, model)


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avalanche_run, "FOLDER", ROOT / "nowhere")
    for module in ("avalanche", "avalanche.training", "avalanche.training.supervised"):
        monkeypatch.setitem(sys.modules, module, None)


def test_who_has_no_avalanche_is_told_how_to_get_it(model: ModelSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    with pytest.raises(AvalancheMissingError, match="make avalanche"):
        made("avalanche-replay", model)


def test_the_plan_goes_on_without_avalanche_and_an_order_does_not(
    model: ModelSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch)

    def small(size: Size, seed: int) -> Stream:
        return stream()

    monkeypatch.setattr(program, "_line", lambda settings: (model, ()))
    monkeypatch.setitem(program.STREAMS, "S1", small)
    options = argparse.Namespace(streams=["S1"], strategies=None, minutes=None, quick=False)
    plan = {"S1": ("avalanche-ewc", "frozen")}
    assert program._all(options, tmp_path, QUICK, plan, [0]) == 0
    assert "make avalanche" in capsys.readouterr().err
    assert [result.strategy for result in load_all(tmp_path)] == ["frozen"]
    options.strategies = ["avalanche-ewc"]
    assert program._all(options, tmp_path, QUICK, plan, [0]) == 1


# With Avalanche


def test_its_packages_go_with_our_torch(avalanche: None) -> None:
    wanted = [Requirement(text) for text in requires("torchvision") or ()]
    (of_torch,) = (requirement.specifier for requirement in wanted if requirement.name == "torch")
    assert torch.__version__.partition("+")[0] in of_torch


def test_they_begin_and_are_examined_as_ours_are(avalanche: None, model: ModelSettings, tmp_path: Path) -> None:
    ours = run(stream(), "naive", STRATEGIES["naive"], 0, model, ())
    theirs = {name: made(name, model) for name in NAMES}
    assert check([ours, *theirs.values()]) == []
    for result in theirs.values():
        assert [step.tasks for step in result.progress] == [step.tasks for step in ours.progress]
        assert [e.after for e in result.examinations] == [e.after for e in ours.examinations]
        assert result.examinations[-1].general_nats != result.examinations[0].general_nats
        assert 0 < result.step_seconds <= result.wall_seconds
    # 8 old ones beside the 8 new ones of the second task, and none before.
    num_replayed = 16
    per_sample = ours.num_tokens / 32
    assert theirs["avalanche-replay"].num_tokens == pytest.approx(ours.num_tokens + num_replayed * per_sample, rel=0.05)
    assert theirs["avalanche-ewc"].num_tokens == ours.num_tokens
    for result in theirs.values():
        save(path_of(tmp_path, result.stream, result.strategy, result.seed), result)
    report.write(load_all(tmp_path), tmp_path / "docs")
    written = (tmp_path / "docs" / "results.md").read_text()
    assert all(f"| `{name}` | 1 |" in written for name in NAMES)


def test_a_run_is_the_same_again(avalanche: None, model: ModelSettings) -> None:
    for name in NAMES:
        first = made(name, model)
        torch.rand(3)  # Whatever was drawn meanwhile.
        again = made(name, model)
        assert (first.examinations, first.progress) == (again.examinations, again.progress)


def test_a_first_step_by_their_loop_is_a_first_step_by_ours(avalanche: None, model: ModelSettings) -> None:
    """One micro-batch: nothing to replay, nothing to hold, and the first step of AdamW does not depend on β₂."""
    of = stream(per_task=8)
    of = of._replace(phases=of.phases[:1])
    ours = run(of, "naive-8", STRATEGIES["naive-8"], 0, model, ()).examinations
    moved = ours[1].general_nats - ours[0].general_nats
    assert abs(moved) > 1e-4
    for name in NAMES:
        theirs = made(name, model, of).examinations
        assert theirs[1].general_nats - theirs[0].general_nats == pytest.approx(moved, rel=1e-2)


def test_the_penalty_is_the_one_of_elastic_weight_consolidation(avalanche: None, learner: AdapterLearner) -> None:
    """λ Σ F (θ - θ*)², F being the mean over micro-batches of the squared gradient: computed here once more."""
    strength = 1e4
    of = stream()
    learning = STRATEGIES["avalanche-ewc"].curriculum.learning
    added: list[float] = []
    expected: list[float] = []
    theta = list(learner.parameters.values())
    fisher: list[torch.Tensor] = []
    anchor: list[torch.Tensor] = []

    class Probe(Watch):
        def after_backward(self, agent: Any, **_: object) -> None:
            if fisher:
                added.append(agent.loss.item() - self._loss)
                terms = [(f * (p.detach() - a) ** 2).sum() for f, p, a in zip(fisher, theta, anchor, strict=True)]
                expected.append(strength * torch.stack(terms).sum().item())

    probe = Probe(learner, of.exam(learner), of.phases, learning.max_grad_norm, lambda what: None)
    module = SampleLosses(learner, probe.samples, learning.tokens_per_pass)
    settings = Avalanche("EWC", {"ewc_lambda": strength, "mode": "online", "decay_factor": 0.99})
    agent = avalanche_run.make_agent(settings, module, learning, [probe], "cpu")
    first, second = avalanche_run.experiences(of.phases)
    agent.train(first, eval_streams=[])
    anchor += [p.detach().clone() for p in theta]
    fisher += [torch.zeros_like(p) for p in anchor]
    for at in (0, 8):
        place_S = torch.arange(at, at + 8)
        weight_S = torch.tensor([probe.samples[place].weight for place in place_S.tolist()])
        loss = weighted_mean(module(place_S), weight_S)
        for f, gradient in zip(fisher, torch.autograd.grad(loss, theta), strict=True):
            f += gradient**2 / 2
    agent.train(second, eval_streams=[])
    assert added[0] == pytest.approx(0, abs=1e-6)  # It begins at the anchor.
    assert added[1] > 1e-3
    assert added == pytest.approx(expected, rel=1e-2, abs=1e-5)


def test_a_penalty_that_does_nothing_is_an_error(avalanche: None, model: ModelSettings) -> None:
    for mode in ({"mode": "online", "decay_factor": 0.9}, {"mode": "separate"}):
        made("ewc", model, strategy=ewc(ewc_lambda=1e4, **mode))
        with pytest.raises(ValueError, match="added nothing to any loss"):
            made("ewc", model, strategy=ewc(ewc_lambda=0.0, **mode))


def test_another_release_is_refused(avalanche: None) -> None:
    with pytest.raises(AvalancheMissingError, match=r"figures are of 0\.5\.0: make avalanche"):
        avalanche_run.require("0.5.0")
