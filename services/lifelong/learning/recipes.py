"""From settings to a recipe. A new method is a file, its fields in ``recipe_settings`` and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

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
from lifelong.learning.optimizers import Parameters
from lifelong.learning.preference import Dpo
from lifelong.learning.recipe import Method, Recipe
from lifelong.learning.recipe_settings import RecipeSettings


def make_recipe(
    settings: RecipeSettings,
    parameters: Parameters,
    *,
    seed: int,
    reference_tokens: int,
    tokens_per_pass: int,
    anchors: Sequence[Sample] = (),
    inputs: Callable[[], Mapping[str, Tensor]] = dict,
) -> Recipe:
    """The parameters as they are when a line begins; what the methods have learnt since is then loaded.

    Args:
        anchors: the base's own words that will be mixed in.
        inputs: what the base's layers are given at its own words, by the name of the lora_A there. Asked for a null
            space.

    Raises:
        ValueError: blocks or periods that these parameters cannot have.
    """
    s = settings
    keeping = {"num_kept": s.kept_predictions, "tokens_per_pass": tokens_per_pass}
    methods: dict[str, Method] = {}
    # It moves the weights to where they begin, which others take down.
    if s.null_space:
        methods["null space"] = NullSpace(parameters, inputs(), energy=s.null_space)
    # Losses: first what is said of a sample's answer, then what holds it near to something.
    if s.preference_strength:
        methods["dpo"] = Dpo(strength=s.preference_strength, beta=s.judgement_beta, reference=s.judgement_reference)
    if s.rating_strength:
        methods["kto"] = Kto(strength=s.rating_strength, beta=s.judgement_beta, reference=s.judgement_reference)
    if s.dark_alpha:
        methods["der"] = DarkReplay(alpha=s.dark_alpha, beta=s.dark_beta, when=s.dark_when, **keeping)
    if s.anchor_kl:
        methods["anchor kl"] = AnchorKl(strength=s.anchor_kl, beta=s.anchor_ce, anchors=anchors, **keeping)
    if s.lwf_strength:
        methods["lwf"] = LearningWithoutForgetting(
            parameters, strength=s.lwf_strength, temperature=s.lwf_temperature, every=s.lwf_every, **keeping
        )
    if s.base_kl_strength:
        methods["base kl"] = KlToBase(strength=s.base_kl_strength, **keeping)
    # Weights, in the order in which they are moved: the slow ones follow last.
    if s.ewc_strength:
        methods["ewc"] = Ewc(
            parameters,
            strength=s.ewc_strength,
            decay=s.ewc_decay,
            centre=s.ewc_centre,
            labels=s.ewc_labels,
            every=s.ewc_every,
            max_samples=s.ewc_samples,
            seed=seed,
        )
    if max(s.layer_periods) > 1:
        methods["multi-frequency"] = MultiFrequency(parameters, periods=by_layer(parameters, s.layer_periods))
    if s.fading:
        methods["fading"] = DynamicEvaluation(parameters, decay=s.fading, reference_tokens=reference_tokens)
    if s.blocks > 1:
        methods["o-lora"] = OLora(
            parameters, strength=s.blocks_strength, num_blocks=s.blocks, versions_per_block=s.blocks_versions
        )
    if s.ema_decay:
        methods["ema"] = Ema(parameters, decay=s.ema_decay, every=s.ema_every, reference_tokens=reference_tokens)
    return Recipe(methods, agem.project if s.old_gradient == "project" else None)


def slow_weights(recipe: Recipe) -> Ema | None:
    """Those that are judged and served, if there are any."""
    return next((method for method in recipe.methods.values() if isinstance(method, Ema)), None)
