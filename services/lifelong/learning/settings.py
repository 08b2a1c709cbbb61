"""How the model learns online. Every field here is written into the manifests, for it decides bytes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class LearningSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seed: int = 0
    """Of the adapter's start and of what is replayed."""
    method: Literal["until-known"] = "until-known"
    """By its name in ``lifelong.learning.methods``."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Meta(gt=0)] = 1.5e-3
    """About ten times that of full fine-tuning. Measured on 12 facts that are alike, one after the other, with
    SmolLM2-135M and a ``beta2`` of 0.999: 2e-3 needs a quarter fewer steps than 1e-3, and 11 are right at the end
    instead of 10; 1e-3 answers paraphrased questions better (13 of 16 instead of 10). With ``recipe.null_space`` a
    fact takes as many steps at 1.5e-3 as without at 1e-3."""
    beta1: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    """AdamW; the momentum of SGD is ``momentum``."""
    beta2: Annotated[float, Meta(ge=0, lt=1)] = 0.95
    """AdamW, for a step of ``reference_tokens``; a smaller step forgets less, so that the half-life in tokens stays. A
    longer one finds all that is new enormous, and moves everything by several times the rate."""
    reference_tokens: Annotated[int, Meta(ge=1)] = 256
    eps: Annotated[float, Meta(gt=0)] = 1e-8
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """SGD."""
    max_grad_norm: Annotated[float, Meta(ge=0)] = 1.0
    """Longer gradients are shortened to this; 0: never."""

    min_steps: Annotated[int, Meta(ge=1)] = 1
    """Steps that every sample gets."""
    step_samples: Annotated[int, Meta(ge=0)] = 4
    """New samples of each of those steps; 0: the whole micro-batch."""
    max_steps: Annotated[int, Meta(ge=1)] = 24
    """Of which a sample that should be known gets no more, those that every sample gets included: it is given up for
    now; replay brings it back."""
    target_loss_nats: Annotated[float, Meta(ge=0)] = 0.1
    """Per token. Below this a sample counts as known."""
    skip_known: bool = True
    """No step is taken where all of its new samples are known already. They are kept for replay like others."""
    max_tokens: Annotated[int, Meta(ge=8)] = 512
    """Of one sample; what is longer is cut."""
    tokens_per_pass: Annotated[int, Meta(ge=8)] = 768
    """That go through the model at once. A bound on memory; the gradient is the same. What the samples of a pass begin
    with alike is worked through once, so that a pass for a whole step of short samples is the cheapest."""

    replay: Literal["reservoir", "balanced", "surprise"] = "balanced"
    """``balanced``: as many of each task as possible, however rare it is; up to half of those that are drawn are facts
    that should be known and are not. ``surprise``: half of them as many of each task as possible, the other half by
    how little they were expected."""
    replay_capacity: Annotated[int, Meta(ge=0)] = 1000
    """Samples kept for replay."""
    replay_samples: Annotated[int, Meta(ge=0)] = 2
    """Old samples mixed into each step, others in each, and twice as many where something is learnt until it is known;
    the base's own words while there are none. Measured on 12 facts that are alike, one after the other, with
    SmolLM2-135M and a rate of 2e-3: right at the end are 6 with 2 old ones, 10 with 4."""
    anchor_samples: Annotated[int, Meta(ge=0)] = 1
    """Answers and texts of the base itself mixed into each step."""
    reading_samples: Annotated[int, Meta(ge=0)] = 1
    """Of facts and corrections, told as a memory and asked at once, in each step of a micro-batch that has such: else
    the model unlearns to heed what the memory tells it."""
    kl_samples: Annotated[int, Meta(ge=0)] = 2
    """New samples of a micro-batch on which KL(base ‖ model) is metered."""
    kl_every: Annotated[int, Meta(ge=1)] = 8
    """Versions after which that is done: two passes forward, of the base and of the model, for a number to look at."""

    def __post_init__(self) -> None:
        if self.max_steps < self.min_steps:
            raise ValueError(f"max_steps ({self.max_steps}) must not be less than min_steps ({self.min_steps})")
