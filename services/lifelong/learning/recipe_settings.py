"""Which methods against forgetting are used, and how much. What has no strength is not there at all.

Each field belongs to the method whose file says what it means. All of them decide bytes, so that all are written into
the manifests.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Strength = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]


class RecipeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    old_gradient: Literal["mean", "project"] = "mean"
    """What the gradient on old samples does: it is part of the mean, or forbids what goes against it (A-GEM)."""
    kept_predictions: Annotated[int, Meta(ge=1)] = 32
    """Tokens of which log-probabilities are kept, wherever a method keeps or compares what a model says."""

    ema_decay: Share = 0.9
    """Of the slow weights, which are the ones that are judged and served. 0: the fast ones are."""
    ema_every: Literal["step", "version"] = "version"
    ema_catch_up: Annotated[int, Meta(ge=0)] = 4
    """Halvings of the way from the slow weights to the fast ones, at most, until what should be known is known."""
    dark_alpha: Strength = 0.0
    """α of DER++, the weight of the KL from what was said of an old sample (``dark_when``). 3 keeps more facts in
    the weights, at half as many steps again, and of tasks with labels holds what was said too early."""
    dark_beta: Strength = 1.0
    """β of DER++, the weight of its label."""
    dark_when: Literal["learnt", "replayed"] = "replayed"
    """What is said of a sample is taken down: right after it was learnt, or, for nothing, when it is first replayed."""
    anchor_kl: Strength = 3.0
    """α of KL(base ‖ model) on the base's own words, ``learning.anchor_samples`` in each step. 0: they are learnt like
    any text."""
    anchor_ce: Strength = 1.0
    """β of the cross-entropy beside it, of those that are answers. With 0 one fact, learnt by a new line until it is
    known, changes answers to other short questions ("the capital of France")."""
    null_space: Share = 0.1
    """ε: the share of the energy of what the base's layers are given at its own words that lies in the directions in
    which the adapter learns. 0: it learns in all, faster, and one fact changes more of what else is answered; take
    two thirds of the ``learning.learning_rate`` then."""
    ewc_strength: Strength = 0.0
    """λ of online EWC; 25 to 175 in the paper."""
    ewc_decay: Annotated[float, Meta(ge=0, le=1)] = 0.99
    """γ of the Fisher information, each time."""
    ewc_centre: Literal["newest", "mean"] = "newest"
    """The anchor: the weights as they were last, or, as in the original EWC, the mean of all they were."""
    ewc_labels: Literal["data", "model"] = "data"
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
    """For which a block learns; 0: for ever, unless drift is seen (``drift.detector``), which begins the next."""
    preference_strength: Strength = 0.0
    """Of DPO, for samples with a rejected answer; beside it the better one is learnt as any answer is."""
    rating_strength: Strength = 0.0
    """Of KTO, for samples with a rating. 0: what was disliked is not learnt from."""
    judgement_beta: Annotated[float, Meta(gt=0)] = 0.1
    """β of both."""
    judgement_reference: Literal["base", "first"] = "base"
    """Of both: the base, or the model as it was when it first saw the sample."""


PLAIN = RecipeSettings(ema_decay=0.0, dark_alpha=0.0, anchor_kl=0.0, null_space=0.0)
"""No method at all: online fine-tuning, with replay if ``learning`` has any."""
