"""Which methods there are in a recipe, by the settings. What has no strength is not there at all.

A new method is a file, its fields here and an entry in ``make_recipe``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lifelong.learning import agem
from lifelong.learning.der import DarkReplay
from lifelong.learning.dynamic_evaluation import DynamicEvaluation
from lifelong.learning.ema import Ema
from lifelong.learning.ewc import Ewc, Labels
from lifelong.learning.kl_base import KlToBase, LearningWithoutForgetting
from lifelong.learning.kto import Kto
from lifelong.learning.multi_frequency import MultiFrequency, by_layer
from lifelong.learning.olora import OLora
from lifelong.learning.optimizers import Parameters
from lifelong.learning.preference import Dpo
from lifelong.learning.recipe import Method, Recipe
from lifelong.learning.reference import Kind

Strength = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]


class RecipeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it decides bytes, so that all of it is written into the manifests."""

    old_gradient: Literal["mean", "project"] = "mean"
    """What the gradient on old samples does: it is part of the mean, or forbids what goes against it (A-GEM)."""
    kept_predictions: Annotated[int, Meta(ge=1)] = 32
    """Tokens of which log-probabilities are kept, wherever a method keeps or compares what a model says."""

    ema_decay: Share = 0.0
    """Of the slow weights, which are the ones that are judged and served. 0: the fast ones are."""
    ema_every: Literal["step", "version"] = "version"
    ema_catch_up: Annotated[int, Meta(ge=0)] = 4
    """Halvings of the way from the slow weights to the fast ones, at most, until what should be known is known."""
    dark_alpha: Strength = 0.0
    """α of DER++, the weight of the KL from what was said of an old sample when it was learnt."""
    dark_beta: Strength = 1.0
    """β of DER++, the weight of its label."""
    ewc_strength: Strength = 0.0
    """λ of online EWC; 25 to 175 in the paper."""
    ewc_decay: Annotated[float, Meta(ge=0, le=1)] = 0.99
    """γ of the Fisher information, each time."""
    ewc_centre: Literal["newest", "mean"] = "newest"
    """The anchor: the weights as they were last, or, as in the original EWC, the mean of all they were."""
    ewc_labels: Labels = "data"
    ewc_every: Annotated[int, Meta(ge=1)] = 16
    """Versions after which what was learnt since is held."""
    ewc_samples: Annotated[int, Meta(ge=1)] = 2
    """Of each micro-batch that the Fisher information is computed from, each in a pass of its own."""
    base_kl_strength: Strength = 0.0
    """β of KL(base ‖ model) on the tokens besides the true ones."""
    lwf_strength: Strength = 0.0
    """λ of learning without forgetting."""
    lwf_every: Annotated[int, Meta(ge=1)] = 16
    """Versions for which its teacher stays the same. 1: the teacher is the model before each micro-batch, which makes
    no difference to the first step of it."""
    lwf_temperature: Annotated[float, Meta(gt=0)] = 2.0
    fading: Share = 0.0
    """λ of dynamic evaluation: the way back to the beginning that is gone in a step of ``reference_tokens``."""
    layer_periods: Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(min_length=1)] = (1,)
    """Steps after which the layers move, from the lowest part of them to the highest; e.g. 4, 2, 1."""
    blocks: Annotated[int, Meta(ge=1)] = 1
    """Of the adapter that learn one after the other (O-LoRA)."""
    blocks_strength: Strength = 0.5
    """λ of their orthogonality."""
    blocks_versions: Annotated[int, Meta(ge=0)] = 0
    """For which a block learns; 0: for ever, unless drift is seen."""
    preference_strength: Strength = 0.0
    """Of DPO, for samples with a rejected answer; beside it the better one is learnt as any answer is."""
    rating_strength: Strength = 0.0
    """Of KTO, for samples with a rating. 0: what was disliked is not learnt from."""
    judgement_beta: Annotated[float, Meta(gt=0)] = 0.1
    """β of both."""
    judgement_reference: Kind = "base"
    """Of both: the base, or the model as it was when it first saw the sample."""


def make_recipe(
    settings: RecipeSettings, parameters: Parameters, *, seed: int, reference_tokens: int, tokens_per_pass: int
) -> Recipe:
    """The parameters as they are when a line begins; what the methods have learnt since is then loaded.

    Raises:
        ValueError: blocks or periods that these parameters cannot have.
    """
    s = settings
    keeping = {"num_kept": s.kept_predictions, "tokens_per_pass": tokens_per_pass}
    methods: dict[str, Method] = {}
    # Losses: first what is said of a sample's answer, then what holds it near to something.
    if s.preference_strength:
        methods["dpo"] = Dpo(strength=s.preference_strength, beta=s.judgement_beta, reference=s.judgement_reference)
    if s.rating_strength:
        methods["kto"] = Kto(strength=s.rating_strength, beta=s.judgement_beta, reference=s.judgement_reference)
    if s.dark_alpha:
        methods["der"] = DarkReplay(alpha=s.dark_alpha, beta=s.dark_beta, **keeping)
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
