"""Whatever keeps the old: a version is still a function of the log, and what is served is what its file says."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.trainer.runs import is_the_same_killed_after_every_version, learn_all
from tests.unit.trainer.world import World

from lifelong.contracts import topics
from lifelong.contracts.events import Forget, Message
from lifelong.contracts.versions import Verdict
from lifelong.learning.gate import GateSettings
from lifelong.learning.losses import evaluate
from lifelong.learning.recipe_settings import PLAIN, RecipeSettings
from lifelong.learning.settings import LearningSettings
from lifelong.model.adapter import WEIGHTS_FILE, unpack_state
from lifelong.model.base import load_base
from lifelong.trainer import schooling
from lifelong.trainer.config import Settings, TrainerSettings
from lifelong.trainer.history import History
from lifelong.trainer.state import FAST_FILE, RECIPE_FILE
from lifelong.trainer.verify import verify

LENIENT = GateSettings(general_tolerance_nats=100, general_drift_nats=100, held_out_tolerance_nats=100)
LEARNING = LearningSettings(learning_rate=1e-2, max_steps=2, replay_samples=2, replay_capacity=6)
RECIPES = {
    "null space": msgspec.structs.replace(PLAIN, null_space=0.1, fading=0.01, ema_decay=0.8),
    "slow weights": msgspec.structs.replace(PLAIN, ema_decay=0.8),
    "slow weights by steps": msgspec.structs.replace(PLAIN, ema_decay=0.8, ema_every="step"),
    "dark replay": msgspec.structs.replace(PLAIN, dark_alpha=0.5),
    "dark replay, lazy": msgspec.structs.replace(PLAIN, dark_alpha=0.5, dark_when="replayed"),
    "ewc": msgspec.structs.replace(PLAIN, ewc_strength=10.0, ewc_every=2),
    "lwf": msgspec.structs.replace(PLAIN, lwf_strength=0.5, lwf_every=2),
    "base kl": msgspec.structs.replace(PLAIN, base_kl_strength=0.5),
    "fading": msgspec.structs.replace(PLAIN, fading=0.01),
    "periods": msgspec.structs.replace(PLAIN, layer_periods=(2, 1)),
    "blocks": msgspec.structs.replace(PLAIN, blocks=2, blocks_versions=2),
    "a-gem": msgspec.structs.replace(PLAIN, old_gradient="project"),
    "judgements": msgspec.structs.replace(
        PLAIN, preference_strength=0.5, rating_strength=0.5, judgement_reference="first"
    ),
    "many": msgspec.structs.replace(
        PLAIN, ema_decay=0.5, dark_alpha=0.3, ewc_strength=1.0, ewc_every=2, base_kl_strength=0.1
    ),
}


def settings_of(recipe: RecipeSettings, **learning) -> Settings:
    return Settings(
        learning=msgspec.structs.replace(LEARNING, **learning),
        recipe=recipe,
        gate=LENIENT,
        trainer=TrainerSettings(batch_size=3, anchor_prompts=("Who are you?", "What is rain?")),
    )


@pytest.fixture
def records(new_record, new_sample):
    """Twelve of two tasks, among them a preference and two ratings."""
    special = {
        4: {"rejected": "It is never so.", "until_known": False, "task": "preference"},
        7: {"rating": 1.0, "until_known": False, "task": "feedback"},
    }
    made = [new_sample(n, **special.get(n, {"task": "odd" if n % 2 else "even"})) for n in range(12)]
    disliked = new_sample(9, rating=-1.0, rejected="It is never so.", weight=0.0, until_known=False, task="feedback")
    made[9] = msgspec.structs.replace(disliked, messages=disliked.messages[:-1])
    return [new_record(number, sample) for number, sample in enumerate(made)]


@pytest.mark.parametrize("name", RECIPES)
def test_killed_and_restored_after_every_version_is_the_same_to_the_byte(new_trainer, records, name):
    candidates = is_the_same_killed_after_every_version(new_trainer, settings_of(RECIPES[name]), records)
    assert (RECIPE_FILE in candidates[-1].files) == (name != "a-gem")


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_makes_other_weights(new_trainer, records, name):
    """Otherwise the tests above would be of nothing."""
    ends = []
    for recipe in (PLAIN, RECIPES[name]):
        trainer = new_trainer(settings_of(recipe))
        trainer.begin()
        ends.append(learn_all(trainer, records)[-1].manifest.weights_sha256)
    assert ends[0] != ends[1]


@pytest.mark.parametrize("replay", ["reservoir", "balanced", "surprise"])
@pytest.mark.parametrize("name", ["slow weights", "dark replay", "ewc", "many"])
def test_after_a_rejection_all_is_as_before(new_trainer, records, monkeypatch, name, replay):
    trainer = new_trainer(settings_of(RECIPES[name], replay=replay))
    trainer.begin()
    learn_all(trainer, records[:6])
    before = trainer.schooling.files()
    monkeypatch.setattr(schooling, "judge", lambda *args: Verdict(False, "for this test"))
    for record in records[6:9]:
        trainer.take(record)
    rejected = trainer.learn("size", epoch=1)
    assert not rejected.manifest.verdict.accepted
    assert rejected.files == before


def test_facts_that_are_not_known_yet_are_repeated_first(new_trainer, records):
    """Two steps teach this model nothing; with a target that everything meets nothing lapses."""
    repeated = {}
    for target in (0.1, 100.0):
        trainer = new_trainer(settings_of(PLAIN, target_loss_nats=target))
        trainer.begin()
        learn_all(trainer, records[:6])
        repeated[target] = trainer.schooling.replay.state().lapsed
        first = {trainer.schooling.replay.draw(2, version=9, step=step)[0].id for step in range(40)}
    facts = {sample.id for sample in trainer.schooling.replay.samples if sample.until_known}
    assert set(repeated[0.1]) == facts < first
    assert repeated[100.0] is msgspec.UNSET


def test_the_slow_weights_are_served_and_the_fast_ones_are_beside_them(new_trainer, records):
    trainer = new_trainer(settings_of(msgspec.structs.replace(PLAIN, ema_decay=0.9, ema_catch_up=0)))
    trainer.begin()
    last = learn_all(trainer, records)[-1]
    slow, fast = unpack_state(last.files[WEIGHTS_FILE]), unpack_state(last.files[FAST_FILE])
    name = next(name for name in slow if "lora_B" in name)
    assert not slow[name].equal(fast[name])
    assert last.manifest.tensors.keys() == slow.keys()
    assert not any(key.startswith("ema/slow") for key in unpack_state(last.files[RECIPE_FILE]))


def test_whether_it_was_learnt_is_seen_by_the_weights_that_learn(new_trainer, records, monkeypatch):
    """The slow ones may still be on their way to what was learnt before."""
    judged = []
    judge = schooling.judge

    def judging(new_before, new_after, *args):
        judged.append((new_before, new_after))
        return judge(new_before, new_after, *args)

    monkeypatch.setattr(schooling, "judge", judging)
    trainer = new_trainer(settings_of(msgspec.structs.replace(PLAIN, ema_decay=0.9, ema_catch_up=0)))
    trainer.begin()
    for candidate in learn_all(trainer, records[:6]):
        last = candidate.report
    new_before, new_after = judged[-1]
    fast = evaluate(trainer.learner, last.new, LEARNING.tokens_per_pass)
    assert new_before == {sample.id: last.lesson.before[sample.id] for sample in last.new}
    assert new_after == pytest.approx({sample.id: fast[sample.id] for sample in last.new}, abs=1e-4)
    assert new_after != pytest.approx(last.lesson.after, abs=1e-2)


def test_what_should_be_known_is_known_by_the_weights_that_are_served(new_trainer, new_record, new_sample):
    settings = settings_of(
        msgspec.structs.replace(PLAIN, ema_decay=0.9), max_steps=40, target_loss_nats=0.5, anchor_samples=0
    )
    trainer = new_trainer(settings)
    trainer.begin()
    for number in range(3):
        for index in range(3):
            trainer.take(new_record(3 * number + index, new_sample(3 * number + index)))
        manifest = trainer.learn("size", epoch=1).manifest
    assert manifest.batches[0].num_steps > 1
    assert manifest.metrics["loss_after_nats"] < 0.5


def test_what_was_disliked_becomes_less_likely_and_is_not_held_against_the_version(new_trainer, new_record, new_sample):
    asked = (Message("user", "Who leads the harbour?"),)
    disliked = msgspec.structs.replace(
        new_sample(0, until_known=False, task="feedback", rating=-1.0, rejected="Quoggy.", weight=0.0), messages=asked
    )
    trainer = new_trainer(
        settings_of(msgspec.structs.replace(PLAIN, rating_strength=5.0), max_steps=2, min_steps=2, anchor_samples=0)
    )
    trainer.begin()
    trainer.take(new_record(0, disliked))
    trainer.take(new_record(1, new_sample(1)))
    candidate = trainer.learn("flush", epoch=1)
    assert candidate.manifest.verdict.accepted
    assert candidate.report.lesson.after[disliked.id] > candidate.report.lesson.before[disliked.id]
    assert candidate.manifest.batches[0].samples == (disliked.id, "0-1-0")


@pytest.mark.parametrize("name", ["slow weights", "many"])
def test_forgotten_and_verified_also_with_a_recipe(tiny_folder, new_record, new_sample, name):
    world = World(tiny_folder)
    world.settings = msgspec.structs.replace(world.settings, recipe=RECIPES[name])
    world.publish([new_record(n, new_sample(n, user="ann" if n == 4 else None)) for n in range(9)])
    world.run()
    # Another recipe from here on: relearning follows each version's own.
    world.settings = msgspec.structs.replace(
        world.settings,
        recipe=msgspec.structs.replace(PLAIN, dark_alpha=0.5),
        learning=msgspec.structs.replace(LEARNING, replay="surprise"),
    )
    world.publish([new_record(n, new_sample(n)) for n in range(9, 12)])
    world.run()
    world.publish([new_record(12, outcome="forget", forget=Forget(user="ann"))])
    world.run()
    newest = world.registry.newest("lifelong")
    assert newest.relearned == (2, 3, 4)
    for from_base in (False, True):
        history = History(lambda: world.broker.source([topics.SAMPLES.name]))
        result = verify(world.registry, newest, history, world.settings.model, load_base, from_base=from_base)
        assert result.differences == []


@pytest.mark.parametrize(
    ("before", "after"),
    [("plain", "slow weights"), ("slow weights", "plain"), ("slow weights", "many"), ("dark replay", "slow weights")],
)
def test_another_recipe_goes_on_from_what_was_served(new_trainer, new_record, new_sample, records, before, after):
    recipes = RECIPES | {"plain": PLAIN}
    trainer = new_trainer(settings_of(recipes[before]))
    trainer.begin()
    parent = learn_all(trainer, records[:6])[-1]

    successor = new_trainer(settings_of(recipes[after]))
    successor.restore(parent.manifest, parent.files)
    successor.take(new_record(6, new_sample(6, weight=0.0)))
    empty = successor.learn("flush", epoch=1)
    assert empty.manifest.verdict.accepted
    assert empty.manifest.weights_sha256 == parent.manifest.weights_sha256
    assert empty.files[WEIGHTS_FILE] == parent.files[WEIGHTS_FILE]

    successor.take(new_record(7, new_sample(7)))
    learnt = successor.learn("flush", epoch=1)
    assert learnt.manifest.weights_sha256 != parent.manifest.weights_sha256


def test_samples_may_be_cut_at_another_length(new_trainer, records):
    settings = settings_of(msgspec.structs.replace(PLAIN, dark_alpha=0.5, dark_when="replayed"), anchor_samples=2)
    trainer = new_trainer(settings)
    trainer.begin()
    parent = learn_all(trainer, records[:6])[-1]
    shorter = settings_of(settings.recipe, anchor_samples=2, max_tokens=40)
    successor = new_trainer(shorter)
    successor.restore(parent.manifest, parent.files)
    for record in records[6:]:
        successor.take(record)
    assert successor.learn("flush", epoch=1).manifest.verdict.accepted
