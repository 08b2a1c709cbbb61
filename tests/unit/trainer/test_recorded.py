"""How a version was learnt, as its manifest has it."""

from __future__ import annotations

import msgspec

from lifelong.learning.recipe_settings import PLAIN, RecipeSettings
from lifelong.learning.settings import LearningSettings
from lifelong.trainer.config import Settings, TrainerSettings
from lifelong.trainer.recorded import curriculum_of


def manifest_of(new_trainer, new_record, new_sample, settings):
    trainer = new_trainer(settings)
    trainer.begin()
    trainer.take(new_record(0, new_sample(0)))
    return trainer.learn("flush", epoch=1).manifest


def test_it_is_what_the_settings_were(new_trainer, new_record, new_sample):
    settings = Settings(
        learning=LearningSettings(step_samples=3, max_steps=2, replay="surprise"),
        recipe=RecipeSettings(layer_periods=(2, 1), ema_decay=0.5),
        trainer=TrainerSettings(anchor_prompts=("Why?",)),
    )
    manifest = manifest_of(new_trainer, new_record, new_sample, settings)
    assert curriculum_of(manifest) == settings.curriculum


def test_what_there_was_no_setting_for_was_as_it_was_then(new_trainer, new_record, new_sample):
    settings = Settings(learning=LearningSettings(max_steps=2), trainer=TrainerSettings(anchor_prompts=("Why?",)))
    manifest = manifest_of(new_trainer, new_record, new_sample, settings)
    then = {
        name: value
        for name, value in manifest.settings.items()
        if name != "learning.step_samples" and not name.startswith("recipe.")
    }
    found = curriculum_of(msgspec.structs.replace(manifest, settings=then))
    assert found.learning == msgspec.structs.replace(settings.learning, step_samples=0)
    assert found.recipe == PLAIN
