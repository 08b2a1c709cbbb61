"""What is compared. A strategy is settings of the trainer, so that what is measured is what runs in production.

Beside them there are two of Avalanche's own, which learn by its loop.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import msgspec

from lifelong.learning.gate import GateSettings
from lifelong.learning.recipe_settings import RecipeSettings
from lifelong.learning.settings import LearningSettings
from lifelong.trainer.config import Curriculum

_OPEN = GateSettings(
    new_tolerance_nats=1e9,
    held_out_tolerance_nats=1e9,
    general_tolerance_nats=1e9,
    general_drift_nats=1e9,
    held_out_ratio=0.0,
    judged_samples=0,
    judged_new=1,
)
"""Nothing is rejected, held out or looked at: all strategies learn the same samples, and pay for nothing else."""
_PLAIN = LearningSettings(replay_samples=0, anchor_samples=0, kl_samples=0)
_REPLAY = msgspec.structs.replace(_PLAIN, replay="balanced", replay_capacity=100)


class Avalanche(msgspec.Struct, frozen=True):
    """A strategy out of ``avalanche.training.supervised``."""

    name: Literal["Replay", "EWC"]
    arguments: dict[str, float | str]
    """Its own; what all strategies have alike is given to it by ``avalanche_run``."""
    release: str = "0.6.0"
    """Of ``avalanche-lib``."""


@dataclasses.dataclass(frozen=True)
class Strategy:
    what: str
    curriculum: Curriculum
    epochs: int = 1
    learns: bool = True
    remembers: bool = False
    """What it is told is looked up, by the memory of the server."""
    is_joint: bool = False
    """All tasks at once, in random order: no stream, but what is lost by having one."""
    avalanche: Avalanche | None = None
    """Who learns, if it is not the trainer; of ``curriculum`` the optimizer and the lengths count."""

    def with_seed(self, seed: int) -> Curriculum:
        learning = msgspec.structs.replace(self.curriculum.learning, seed=seed)
        return self.curriculum._replace(learning=learning)


def _strategy(
    what: str,
    learning: LearningSettings = _PLAIN,
    recipe: RecipeSettings | None = None,
    gate: GateSettings = _OPEN,
    epochs: int = 1,
    is_joint: bool = False,
) -> Strategy:
    return Strategy(what, Curriculum(learning, recipe or RecipeSettings(), gate), epochs=epochs, is_joint=is_joint)


def _replaying(num_samples: int, num_anchors: int = 0) -> LearningSettings:
    return msgspec.structs.replace(_REPLAY, replay_samples=num_samples, anchor_samples=num_anchors)


def _avalanche(what: str, avalanche: Avalanche) -> Strategy:
    return Strategy(what, Curriculum(_PLAIN, RecipeSettings(), _OPEN), avalanche=avalanche)


STRATEGIES = {
    "frozen": Strategy("the base, which learns nothing", Curriculum(_PLAIN, RecipeSettings(), _OPEN), learns=False),
    "memory": Strategy(
        "the base with the memory, which looks up what it was told",
        Curriculum(_PLAIN, RecipeSettings(), _OPEN),
        learns=False,
        remembers=True,
    ),
    "naive": _strategy("each micro-batch once, nothing against forgetting"),
    "naive-twice": _strategy(
        "the same, two steps each: the tokens of replay spent on new samples",
        msgspec.structs.replace(_PLAIN, min_steps=2),
    ),
    "joint": _strategy("all tasks shuffled, three epochs: the upper bound", epochs=3, is_joint=True),
    "replay-2": _strategy("2 old samples beside 8 new ones", _replaying(2)),
    "replay-8": _strategy("8 old samples beside 8 new ones", _replaying(8)),
    "ewc": _strategy("online EWC", recipe=RecipeSettings(ewc_strength=100.0)),
    "lwf": _strategy("learning without forgetting", recipe=RecipeSettings(lwf_strength=1.0)),
    "agem": _strategy("A-GEM on 8 old samples", _replaying(8), RecipeSettings(old_gradient="project")),
    "olora": _strategy(
        "O-LoRA, a block for each fifth of the stream", recipe=RecipeSettings(blocks=5, blocks_versions=15)
    ),
    "ema": _strategy("8 old samples; slow weights are served", _replaying(8), RecipeSettings(ema_decay=0.95)),
    "der": _strategy("DER++ on 8 old samples", _replaying(8), RecipeSettings(dark_alpha=1.0)),
    "recipe": _strategy(
        "DER++ on 2 old samples, kept when first replayed, and 1 of the base; slow weights are served; the gate",
        _replaying(2, 1),
        RecipeSettings(dark_alpha=1.0, dark_when="replayed", ema_decay=0.9),
        GateSettings(),
    ),
    "default": Strategy("the settings that lifelong has without any configuration", Curriculum()),
    "avalanche-replay": _avalanche(
        "Avalanche's Replay, 8 old samples beside 8 new ones; is told where a task ends",
        Avalanche("Replay", {"mem_size": 100}),
    ),
    # λ: at the seventh step of trec6 after sms the penalty is 0.6 nats, the loss 1.8. By no search.
    "avalanche-ewc": _avalanche(
        "Avalanche's online EWC; is told where a task ends",
        Avalanche("EWC", {"ewc_lambda": 1000.0, "mode": "online", "decay_factor": 0.99}),
    ),
}
