"""From settings to recipes."""

from __future__ import annotations

import msgspec
import pytest
from tests.learning.toy import ToyLearner, toy_anchor

from lifelong.learning.agem import project
from lifelong.learning.ema import Ema
from lifelong.learning.recipe_settings import PLAIN, RecipeSettings
from lifelong.learning.recipes import make_recipe, slow_weights

ONE_OF_EACH = {
    "null space": {"null_space": 0.5},
    "dpo": {"preference_strength": 1.0},
    "kto": {"rating_strength": 1.0},
    "der": {"dark_alpha": 0.5},
    "lwf": {"lwf_strength": 1.0},
    "base kl": {"base_kl_strength": 0.1},
    "ewc": {"ewc_strength": 50.0},
    "multi-frequency": {"layer_periods": (2, 1)},
    "fading": {"fading": 0.01},
    "o-lora": {"blocks": 2},
    "ema": {"ema_decay": 0.9},
}


def made(**fields):
    settings = msgspec.convert(msgspec.structs.asdict(PLAIN) | fields, RecipeSettings)
    learner = ToyLearner()
    return make_recipe(
        settings,
        learner.parameters,
        seed=0,
        reference_tokens=256,
        tokens_per_pass=512,
        inputs=lambda: learner.layer_inputs([toy_anchor(1)]),
    )


def test_plain_has_nothing():
    recipe = made()
    assert recipe.methods == {}
    assert recipe.combine is None
    assert recipe.state() == {}
    assert slow_weights(recipe) is None


def test_by_default_the_bases_own_words_are_held_and_the_slow_weights_are_served():
    assert list(made(**msgspec.structs.asdict(RecipeSettings())).methods) == ["null space", "anchor kl", "ema"]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_what_has_strength_is_there_alone(name):
    assert list(made(**ONE_OF_EACH[name]).methods) == [name]


def test_all_together_in_the_order_of_their_hooks():
    recipe = made(**{key: value for fields in ONE_OF_EACH.values() for key, value in fields.items()})
    assert list(recipe.methods) == list(ONE_OF_EACH)
    assert isinstance(slow_weights(recipe), Ema)
    assert made(old_gradient="project").combine is project


@pytest.mark.parametrize(
    "fields",
    [{"ema_decay": 1.0}, {"dark_alpha": -0.5}, {"layer_periods": ()}, {"layer_periods": (0,)}, {"unknown": 1}],
)
def test_nonsense_is_refused(fields):
    with pytest.raises(msgspec.ValidationError):
        made(**fields)
