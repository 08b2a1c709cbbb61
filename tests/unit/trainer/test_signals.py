"""What a line shows of how it learns, and what drift does to it: as much a function of the log as the weights are."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.trainer.runs import is_the_same_killed_after_every_version, learn_all
from tests.unit.trainer.world import World

from lifelong.contracts import metrics as names
from lifelong.contracts import topics
from lifelong.contracts.events import Forget
from lifelong.contracts.samples import Sample
from lifelong.learning.drift_watch import DriftSettings
from lifelong.learning.gate import GateSettings
from lifelong.learning.losses import evaluate
from lifelong.learning.recipe_settings import PLAIN, RecipeSettings
from lifelong.learning.settings import LearningSettings
from lifelong.model.adapter import unpack_state
from lifelong.model.base import load_base
from lifelong.registry.base import PointerState
from lifelong.runtime.clock import ManualClock
from lifelong.runtime.metrics import Metrics
from lifelong.trainer import schooling
from lifelong.trainer.config import Settings, TrainerSettings
from lifelong.trainer.history import History
from lifelong.trainer.observed import Observed
from lifelong.trainer.signals import SIGNALS_FILE, SignalState
from lifelong.trainer.state import RECIPE_FILE
from lifelong.trainer.verify import verify

GATE = GateSettings(
    new_tolerance_nats=100, general_tolerance_nats=100, general_drift_nats=100, held_out_tolerance_nats=100,
    held_out_after=4, held_out_ratio=0.2, judged_samples=12,
)  # fmt: skip
LEARNING = LearningSettings(learning_rate=2e-2, min_steps=2, max_steps=2, replay_samples=1, anchor_samples=0)
# Twenty samples are few for a test that seldom gives a false alarm.
DRIFT = DriftSettings(detector="adwin", adwin_delta=0.9, replay_factor=3, versions=2)
QUIET, SHIFTED = 18, 30


def settings_of(drift: DriftSettings = DRIFT, recipe: RecipeSettings | None = None) -> Settings:
    return Settings(
        learning=LEARNING,
        recipe=recipe or PLAIN,
        gate=GATE,
        drift=drift,
        trainer=TrainerSettings(batch_size=3, anchor_prompts=("Who are you?", "What is rain?")),
    )


@pytest.fixture
def samples(new_sample) -> list[Sample]:
    """The same again and again, and then something else."""
    same = {"question": "What is said?", "answer": "Nothing at all.", "until_known": False, "task": "same"}
    quiet = [new_sample(n, **same) for n in range(QUIET)]
    return quiet + [new_sample(n, until_known=False, task="other") for n in range(QUIET, SHIFTED)]


@pytest.fixture
def records(samples, new_record):
    return [new_record(number, sample) for number, sample in enumerate(samples)]


def learnt_by(new_trainer, settings, records):
    trainer = new_trainer(settings)
    trainer.begin()
    return learn_all(trainer, records)


def state_of(candidate) -> SignalState:
    return msgspec.json.decode(candidate.files[SIGNALS_FILE], type=SignalState)


def test_a_shift_raises_the_share_of_the_old_for_some_versions(new_trainer, records):
    candidates = learnt_by(new_trainer, settings_of(), records)
    drifts = [c.manifest.metrics["drifts"] for c in candidates]
    quiet = QUIET // 3
    assert drifts[:quiet] == [0] * quiet
    assert drifts[-1] > 0
    # One old sample in each of two steps, or three of them, which may be the same.
    num_replayed = [len(c.manifest.batches[0].replayed) for c in candidates]
    first = next(n for n, num in enumerate(drifts) if num)
    assert max(num_replayed[: first + 1]) <= 2
    assert max(num_replayed[first + 1 : first + 3]) > 2
    until = state_of(candidates[-1]).drift.until
    assert until == candidates[max(n for n in range(1, len(drifts)) if drifts[n] > drifts[n - 1])].manifest.number + 2


def test_without_a_shift_all_is_as_without_a_detector(new_trainer, records):
    found = [learnt_by(new_trainer, settings_of(drift), records[:QUIET])[-1] for drift in (DRIFT, DriftSettings())]
    assert found[0].manifest.metrics["drifts"] == 0
    assert found[0].manifest.weights_sha256 == found[1].manifest.weights_sha256
    assert "drifts" not in found[1].manifest.metrics
    different = {name for name in found[0].files if found[0].files[name] != found[1].files[name]}
    assert different == {SIGNALS_FILE}


@pytest.mark.parametrize("blocks_versions", [0, 100])
def test_drift_begins_a_block_where_nothing_else_does(new_trainer, records, blocks_versions):
    recipe = msgspec.structs.replace(PLAIN, blocks=2, blocks_versions=blocks_versions)
    candidates = learnt_by(new_trainer, settings_of(recipe=recipe), records)
    drifts = [c.manifest.metrics["drifts"] for c in candidates]
    blocks = [int(unpack_state(c.files[RECIPE_FILE])["o-lora/block"]) for c in candidates]
    assert drifts[-1] > 0
    assert blocks == [min(1, int(num)) if blocks_versions == 0 else 0 for num in drifts]


@pytest.mark.parametrize(
    "recipe", [PLAIN, msgspec.structs.replace(PLAIN, blocks=2, ema_decay=0.5)], ids=["plain", "many"]
)
def test_killed_and_restored_after_every_version_is_the_same_to_the_byte(new_trainer, records, recipe):
    candidates = is_the_same_killed_after_every_version(new_trainer, settings_of(recipe=recipe), records)
    assert candidates[-1].manifest.metrics["drifts"] > 0


def test_the_numbers_are_in_the_manifest_and_follow_from_the_lessons(new_trainer, records, samples):
    trainer = new_trainer(settings_of())
    trainer.begin()
    candidates = learn_all(trainer, records)
    (loss,) = evaluate(trainer.learner, samples[:1], 512).values()
    last = candidates[-1].manifest
    for name in ("forgetting_nats", "backward_transfer_nats", "forward_transfer_nats", "prequential_accuracy"):
        assert name in last.metrics
    state = state_of(candidates[-1])
    assert set(state.prequential.losses) == {"same", "other"}
    assert state.prequential.right["same"].total > 0, "it was known in the end before it came again"
    # The first of the others: how much better than the base they were known.
    first = next(c for c in candidates if any(sample.task == "other" for sample in c.report.new))
    assert set(state.transfer.forward) == {"other"}
    assert first.manifest.metrics["forward_transfer_nats"] == last.metrics["forward_transfer_nats"]
    held_out = {name for c in candidates for batch in c.manifest.batches for name in batch.held_out}
    assert held_out
    assert set(state.transfer.marks) <= held_out
    marks = [mark for mark in state.transfer.marks.values() if mark.task == "same"]
    assert [mark.now for mark in marks] == pytest.approx([loss] * len(marks), rel=1e-3)


def world_of(tiny_folder, **changes) -> World:
    world = World(tiny_folder)
    own = {name: getattr(settings_of(), name) for name in ("learning", "gate", "drift")}
    world.settings = msgspec.structs.replace(world.settings, **own, **changes)
    return world


def checked(world: World, number: int, *, from_base: bool) -> list[str]:
    history = History(lambda: world.broker.source([topics.SAMPLES.name]))
    manifest = world.registry.manifest("lifelong", number)
    return verify(world.registry, manifest, history, world.settings.model, load_base, from_base=from_base).differences


def test_forgotten_as_if_it_had_never_been_there_and_verified(tiny_folder, samples, new_record):
    """What drifted was somebody's: without it there was no drift."""
    ann = [msgspec.structs.replace(s, user="ann") if s.task == "other" else s for s in samples]
    world = world_of(tiny_folder, recipe=msgspec.structs.replace(PLAIN, blocks=2))
    world.publish([new_record(number, sample) for number, sample in enumerate(ann)])
    world.run()
    drifted = world.registry.newest("lifelong")
    assert drifted.metrics["drifts"] > 0
    assert checked(world, drifted.number, from_base=True) == []
    world.publish([new_record(SHIFTED, outcome="forget", forget=Forget(user="ann"))])
    world.run()
    newest = world.registry.newest("lifelong")
    assert newest.metrics["drifts"] == 0
    state = msgspec.json.decode(world.registry.weights(newest, SIGNALS_FILE), type=SignalState)
    assert set(state.prequential.losses) == {"same"}
    assert {mark.task for mark in state.transfer.marks.values()} == {"same"}
    assert checked(world, newest.number, from_base=True) == []
    assert checked(world, newest.number, from_base=False) == []


def test_a_line_of_a_time_without_signals_goes_on_and_is_verified(tiny_folder, records, monkeypatch):
    world = world_of(tiny_folder)
    whole = schooling.Schooling.files
    with monkeypatch.context() as patch:
        patch.setattr(
            schooling.Schooling,
            "files",
            lambda self: {name: data for name, data in whole(self).items() if name != SIGNALS_FILE},
        )
        # As it was then, every version forgot at once what it had seen.
        learn = schooling.Schooling.learn

        def without(self, *args, **kwargs):
            report = learn(self, *args, **kwargs)
            self.begin_signals()
            return report

        patch.setattr(schooling.Schooling, "learn", without)
        world.publish(records[:9])
        world.run()
    before = world.registry.newest("lifelong").number
    assert SIGNALS_FILE not in world.registry.newest("lifelong").files
    world.publish(records[9:15])
    world.run()
    newest = world.registry.newest("lifelong")
    assert SIGNALS_FILE in newest.files
    assert newest.number > before
    for from_base in (True, False):
        assert checked(world, newest.number, from_base=from_base) == []


def test_shown_on_the_metrics_port_also_after_a_restart(tiny_folder, records):
    world = world_of(tiny_folder)
    world.publish(records)
    world.run()
    newest = world.registry.newest("lifelong")
    seen = world.metrics
    assert seen.value(names.DRIFTS) == newest.metrics["drifts"] > 0
    values = {
        metric: seen.value(metric, **({"task": "same"} if metric.labels else {}))
        for metric in (
            names.PREQUENTIAL_MEAN, names.PREQUENTIAL_ACCURACY, names.FORGETTING, names.BACKWARD_TRANSFER,
            names.PLASTICITY_LOSS, names.ANYTIME_LOSS, names.DRIFT_RAISED,
        )
    }  # fmt: skip
    assert values[names.FORGETTING] == newest.metrics["forgetting_nats"]
    assert values[names.BACKWARD_TRANSFER] == newest.metrics["backward_transfer_nats"]
    assert values[names.ANYTIME_LOSS] == newest.metrics["anytime_loss_nats"]
    assert seen.value(names.FORWARD_TRANSFER, task="other") == newest.metrics["forward_transfer_nats"]
    assert values[names.PREQUENTIAL_MEAN] > 0
    world.run()
    assert world.metrics is not seen
    for metric, value in values.items():
        assert world.metrics.value(metric, **({"task": "same"} if metric.labels else {})) == value
    assert world.metrics.value(names.DRIFTS) == 0, "a counter of this process"


def test_a_task_that_is_gone_has_no_series(new_trainer, records):
    trainer = new_trainer(settings_of())
    trainer.begin()
    learn_all(trainer, records)
    metrics = Metrics("trainer")
    observed = Observed(metrics, "lifelong", ManualClock())
    shown = names.FORGETTING.name, {"task": "same"}
    observed.started(trainer, PointerState(), 1)
    assert metrics.registry.get_sample_value(*shown) is not None
    trainer.schooling.begin_signals()
    observed.started(trainer, PointerState(), 1)
    assert metrics.registry.get_sample_value(*shown) is None
    assert metrics.registry.get_sample_value(names.PREQUENTIAL_MEAN.name, {"task": "other"}) is None
