"""What holds for every method, alone and together: on a toy, and on a real adapter where it costs little."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import pytest
import safetensors.torch
import torch
from tests.learning.toy import ToyLearner, copy_of, same, toy_anchor, toy_sample

from lifelong.contracts.samples import Sample
from lifelong.learning import agem
from lifelong.learning.anchor_kl import AnchorKl
from lifelong.learning.der import DarkReplay
from lifelong.learning.dynamic_evaluation import DynamicEvaluation
from lifelong.learning.ema import Ema
from lifelong.learning.ewc import Ewc
from lifelong.learning.kl_base import KlToBase, LearningWithoutForgetting
from lifelong.learning.kto import Kto
from lifelong.learning.multi_frequency import MultiFrequency, by_layer
from lifelong.learning.null_space import NullSpace
from lifelong.learning.olora import OLora
from lifelong.learning.online import learn
from lifelong.learning.optimizers import SGD, AdamW
from lifelong.learning.preference import Dpo
from lifelong.learning.recipe import Method, Recipe
from lifelong.learning.settings import LearningSettings
from lifelong.learning.surprise import SurpriseReservoir

ANCHORS = [toy_anchor(900), toy_anchor(901, messages=(), text="482")]
SETTINGS = LearningSettings(learning_rate=0.02, min_steps=2, max_steps=4, target_loss_nats=0.5, tokens_per_pass=12)


def some_inputs(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(4, p.shape[1], generator=generator) for name, p in parameters.items() if "lora_A" in name}


# Each with a strength that does something, and as good as absent.
Make = Callable[[object], Recipe]
METHODS: dict[str, tuple[Callable[..., Method], Callable[..., Method] | None]] = {
    # First: it moves the weights to where they begin.
    "null space": (
        lambda p: NullSpace(p, some_inputs(p), energy=0.3),
        lambda p: NullSpace(p, some_inputs(p), energy=1.0),
    ),
    "ema": (lambda p: Ema(p, decay=0.9), lambda p: Ema(p, decay=0.0)),
    "ema by versions": (lambda p: Ema(p, decay=0.7, every="version"), None),
    "der": (lambda p: DarkReplay(alpha=0.7, beta=0.3, num_kept=4), lambda p: DarkReplay(alpha=0.0)),
    "anchor kl": (lambda p: AnchorKl(strength=2.0, num_kept=4), lambda p: AnchorKl(strength=0.0)),
    "ewc": (
        lambda p: Ewc(p, strength=20.0, centre="mean", decay=1.0, labels="model", max_samples=1, every=1),
        lambda p: Ewc(p, strength=0.0),
    ),
    "online ewc": (lambda p: Ewc(p, strength=20.0, decay=0.9, every=2), None),
    "kl to base": (lambda p: KlToBase(strength=0.5), lambda p: KlToBase(strength=0.0)),
    "lwf": (
        lambda p: LearningWithoutForgetting(p, strength=1.0, every=2),
        lambda p: LearningWithoutForgetting(p, strength=0.0),
    ),
    "lwf from just before": (lambda p: LearningWithoutForgetting(p, strength=1.0, every=1), None),
    "dynamic evaluation": (lambda p: DynamicEvaluation(p, decay=0.1), lambda p: DynamicEvaluation(p, decay=0.0)),
    "multi-frequency": (
        lambda p: MultiFrequency(p, periods=by_layer(p, (3, 1))),
        lambda p: MultiFrequency(p, periods=by_layer(p, (1,))),
    ),
    "o-lora": (
        lambda p: OLora(p, strength=0.5, num_blocks=2, versions_per_block=2),
        lambda p: OLora(p, strength=0.0, num_blocks=1),
    ),
    "dpo": (lambda p: Dpo(strength=1.0, reference="first"), lambda p: Dpo(strength=0.0)),
    "dpo from base": (lambda p: Dpo(strength=1.0), None),
    "kto": (lambda p: Kto(strength=1.0), lambda p: Kto(strength=0.0)),
    "kto from first": (lambda p: Kto(strength=1.0, reference="first"), None),
}


def recipe_of(name: str, parameters: object, which: int = 0) -> Recipe:
    if name == "a-gem":
        return Recipe(combine=agem.project)
    if name == "all":
        made = {key: pair[0](parameters) for key, pair in METHODS.items() if key not in ("o-lora", "ewc")}
        return Recipe(made, combine=agem.project)
    return Recipe({name: METHODS[name][which](parameters)})


NAMES = [*METHODS, "a-gem", "all"]
ZERO = [name for name, (_, zero) in METHODS.items() if zero is not None]


def stream(version: int) -> list[Sample]:
    number = 10 * version
    return [
        toy_sample(number, until_known=True),
        toy_sample(number + 1, rejected="77", weight=0.5),
        toy_sample(number + 2, rating=1.0),
        toy_sample(number + 3, rating=-0.6, weight=0.6),
    ]


class Run:
    """A line: what a trainer does with a recipe, without gate."""

    def __init__(self, recipe_name: str | None, which: int = 0, settings: LearningSettings = SETTINGS) -> None:
        self.learner = ToyLearner()
        self.settings = settings
        self.recipe = Recipe() if recipe_name is None else recipe_of(recipe_name, self.learner.parameters, which)
        self.optimizer = AdamW(self.learner.parameters, settings)
        self.replay = SurpriseReservoir(6, 0)

    def learn(self, version: int, *, replay: int = 2) -> None:
        new = stream(version)
        lesson = learn(
            self.learner, self.optimizer, new,
            lambda step: [*self.replay.draw(replay, version=version, step=step), *(ANCHORS if replay else ())],
            self.settings, recipe=self.recipe, version=version,
        )  # fmt: skip
        self.replay.saw(lesson.before | lesson.mixed_in)
        for sample in new:
            self.replay.add(sample)
        self.recipe.keep({sample.id for sample in [*self.replay.samples, *ANCHORS]})

    def save(self):
        tensors = {f"weights/{name}": t for name, t in copy_of(self.learner).items()}
        tensors |= {f"optimizer/{name}": t for name, t in self.optimizer.state().items()}
        tensors |= {f"recipe/{name}": t for name, t in self.recipe.state().items()}
        return safetensors.torch.save(tensors), self.replay.state(), list(self.replay.samples)

    def restore(self, saved) -> None:
        data, replay, samples = saved
        parts = {"weights": {}, "optimizer": {}, "recipe": {}}
        for name, tensor in safetensors.torch.load(data).items():
            which, _, rest = name.partition("/")
            parts[which][rest] = tensor
        with torch.no_grad():
            for name, parameter in self.learner.parameters.items():
                parameter.copy_(parts["weights"][name])
        self.optimizer.load(parts["optimizer"])
        self.recipe.load(parts["recipe"])
        self.replay.load(replay, samples)


@pytest.mark.parametrize("name", NAMES)
def test_it_makes_a_difference(name):
    plain, with_it = Run(None), Run(name)
    for version in range(3):
        plain.learn(version)
        with_it.learn(version)
    weights = copy_of(with_it.learner)
    if name.startswith("ema"):
        with with_it.recipe.methods[name].swapped():
            weights = copy_of(with_it.learner)
    assert not same(weights, copy_of(plain.learner))


@pytest.mark.parametrize("name", ZERO)
def test_of_no_strength_it_is_plain_fine_tuning_to_the_bit(name):
    plain, without = Run(None), Run(name, 1)
    for version in range(3):
        plain.learn(version)
        without.learn(version)
    assert same(copy_of(without.learner), copy_of(plain.learner))


def test_a_gem_without_old_samples_is_plain_fine_tuning_to_the_bit():
    plain, without = Run(None), Run("a-gem")
    for version in range(3):
        plain.learn(version, replay=0)
        without.learn(version, replay=0)
    assert same(copy_of(without.learner), copy_of(plain.learner))


@pytest.mark.parametrize("name", NAMES)
def test_twice_the_same_is_the_same_to_the_byte(name):
    runs = Run(name), Run(name)
    for version in range(3):
        for run in runs:
            run.learn(version)
    assert runs[0].save() == runs[1].save()


@pytest.mark.parametrize("name", NAMES)
def test_resumed_is_uninterrupted_to_the_byte(name):
    whole, resumed = Run(name), Run(name)
    for version in range(3):
        whole.learn(version)
    saved = whole.save()
    resumed.restore(saved)
    assert resumed.save() == saved
    for version in range(3, 6):
        whole.learn(version)
        resumed.learn(version)
    assert resumed.save() == whole.save()


@pytest.mark.parametrize("name", NAMES)
def test_how_much_goes_through_the_model_at_once_makes_no_difference(name):
    """But for rounding."""
    ends = []
    for tokens_per_pass in (8, 1000):
        run = Run(name, 0, msgspec.structs.replace(SETTINGS, tokens_per_pass=tokens_per_pass, optimizer="sgd"))
        run.optimizer = SGD(run.learner.parameters, run.settings)
        for version in range(3):
            run.learn(version)
        ends.append({**copy_of(run.learner), **run.recipe.state()})
    assert ends[0].keys() == ends[1].keys()
    for key, tensor in ends[0].items():
        if not key.startswith(("der/", "anchor kl/")):  # of equally likely tokens either may be kept
            torch.testing.assert_close(tensor, ends[1][key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_rejected_micro_batch_leaves_nothing(name):
    """Who goes back to the state before and learns something else, as if it had never been."""
    rejected, never = Run(name), Run(name)
    for run in (rejected, never):
        run.learn(0)
        run.learn(1)
    saved = rejected.save()
    rejected.learn(2)
    rejected.restore(saved)
    rejected.learn(3)
    never.learn(3)
    assert rejected.save() == never.save()


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_a_copy(name):
    run = Run(name)
    run.learn(0)
    state = run.recipe.state()
    before = {key: tensor.clone() for key, tensor in state.items()}
    run.learn(1)
    assert same(state, before)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_is_left_behind_and_nothing_is_remembered_of_samples_that_are_gone(name):
    run = Run(name)
    run.learn(0)
    run.learn(1)
    assert all(parameter.grad is None for parameter in run.learner.parameters.values())
    gone = run.replay.samples[0].id
    run.recipe.keep({sample.id for sample in run.replay.samples[1:]})
    assert not [key for key in run.recipe.state() if gone in key]


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("ema by versions", "online ewc")])
def test_resumed_is_uninterrupted_on_an_adapter(name, new_learner, new_sample):
    settings = LearningSettings(learning_rate=1e-2, max_steps=2)

    def learnt(learner, recipe, optimizer, versions):
        for version in versions:
            new = [
                new_sample(version, rejected="no", until_known=True),
                new_sample(50 + version, rating=-1.0),
                new_sample(70 + version, rating=1.0),
            ]
            old = [new_sample(version - 1, rejected="no", until_known=True)] if version else []
            learn(learner, optimizer, new, lambda step, old=old: old, settings, recipe=recipe, version=version)
            recipe.keep({sample.id for sample in new})

    whole = new_learner()
    recipe, optimizer = recipe_of(name, whole.parameters), AdamW(whole.parameters, settings)
    learnt(whole, recipe, optimizer, range(2))
    resumed = new_learner()
    other, other_optimizer = recipe_of(name, resumed.parameters), AdamW(resumed.parameters, settings)
    with torch.no_grad():
        for key, parameter in resumed.parameters.items():
            parameter.copy_(whole.parameters[key])
    other_optimizer.load(optimizer.state())
    other.load(safetensors.torch.load(safetensors.torch.save(recipe.state())))
    learnt(whole, recipe, optimizer, range(2, 3))
    learnt(resumed, other, other_optimizer, range(2, 3))
    assert same(copy_of(resumed), copy_of(whole))
    assert same(other.state(), recipe.state())
