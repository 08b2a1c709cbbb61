"""What is compared. A strategy is settings of the trainer, so that what is measured is what runs in production.

Beside them there are two of Avalanche's own, which learn by its loop.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import msgspec
from benchmarks.assignments import changed

from lifelong.learning.gate import GateSettings
from lifelong.learning.recipe_settings import PLAIN, RecipeSettings
from lifelong.learning.settings import LearningSettings
from lifelong.trainer.config import Curriculum, Settings

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
_PLAIN = LearningSettings(
    learning_rate=1e-3, replay_samples=0, anchor_samples=0, reading_samples=0, kl_samples=0, skip_known=False
)
_REPLAY = msgspec.structs.replace(_PLAIN, replay_samples=2)


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
    guesses_by: int = 0
    """So many of the last labels it goes by, without reading a text; 0: it is a model."""
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
    recipe: RecipeSettings = PLAIN,
    epochs: int = 1,
    is_joint: bool = False,
) -> Strategy:
    return Strategy(what, Curriculum(learning, recipe, _OPEN), epochs=epochs, is_joint=is_joint)


def _with(**methods: object) -> RecipeSettings:
    return msgspec.structs.replace(PLAIN, **methods)


def _avalanche(what: str, avalanche: Avalanche) -> Strategy:
    return Strategy(what, Curriculum(_PLAIN, PLAIN, _OPEN), avalanche=avalanche)


STRATEGIES = {
    "frozen": Strategy("the base, which learns nothing", Curriculum(_PLAIN, PLAIN, _OPEN), learns=False),
    "blind-last": Strategy(
        "says the last label that it was told", Curriculum(_PLAIN, PLAIN, _OPEN), learns=False, guesses_by=1
    ),
    "blind-frequent": Strategy(
        "says the most frequent of the last 32 labels", Curriculum(_PLAIN, PLAIN, _OPEN), learns=False, guesses_by=32
    ),
    "memory": Strategy(
        "the base with the memory, which looks up what it was told",
        Curriculum(_PLAIN, PLAIN, _OPEN),
        learns=False,
        remembers=True,
    ),
    "naive": _strategy("each sample once, 4 a step, nothing against forgetting"),
    "naive-8": _strategy("the same, 8 a step", msgspec.structs.replace(_PLAIN, step_samples=0)),
    "naive-twice": _strategy(
        "each sample twice: twice the tokens, all of them new", msgspec.structs.replace(_PLAIN, min_steps=2)
    ),
    "joint": _strategy("all tasks shuffled, three epochs: the upper bound", epochs=3, is_joint=True),
    "replay": _strategy("2 old samples beside 4 new ones", _REPLAY),
    "ewc": _strategy("online EWC", recipe=_with(ewc_strength=100.0)),
    "lwf": _strategy("learning without forgetting", recipe=_with(lwf_strength=1.0)),
    "agem": _strategy("A-GEM on 2 old samples", _REPLAY, _with(old_gradient="project")),
    "olora": _strategy("O-LoRA, a block for each fifth of the stream", recipe=_with(blocks=5, blocks_versions=25)),
    "ema": _strategy("2 old samples; slow weights are served", _REPLAY, _with(ema_decay=0.9)),
    "der": _strategy("DER++ on 2 old samples", _REPLAY, _with(dark_alpha=3.0, dark_when="replayed")),
    "default": Strategy(
        "what lifelong does without any configuration: 2 old samples and 1 of the base beside 4 new ones, where the "
        "base leaves room, no step on what is known, slow weights are served, the gate",
        Curriculum(),
    ),
    "default-dark": Strategy("the default with DER++, α 3", Curriculum(recipe=RecipeSettings(dark_alpha=3.0))),
    "default-no-skip": Strategy(
        "the default, but each sample is learnt once, known or not", Curriculum(LearningSettings(skip_known=False))
    ),
    "all-directions": Strategy(
        "the default, but not only where the base leaves room, at two thirds of the rate",
        Curriculum(LearningSettings(learning_rate=1e-3), RecipeSettings(null_space=0.0)),
    ),
    "without-readings": Strategy(
        "the default, but facts are learnt without readings of them",
        Curriculum(LearningSettings(reading_samples=0)),
    ),
    "without-readings-memory": Strategy(
        "without-readings beside the memory, as the server answers",
        Curriculum(LearningSettings(reading_samples=0)),
        remembers=True,
    ),
    "default-fast": Strategy(
        "the default, but what learns is served", Curriculum(recipe=RecipeSettings(ema_decay=0.0))
    ),
    "default-late": Strategy(
        "the default, but the slow weights do not catch up", Curriculum(recipe=RecipeSettings(ema_catch_up=0))
    ),
    "default-memory": Strategy("the default beside the memory, as the server answers", Curriculum(), remembers=True),
    "default-ungated": Strategy("the default without the gate", Curriculum(gate=_OPEN)),
    "avalanche-replay": _avalanche(
        "Avalanche's Replay, 8 old samples beside 8 new ones; is told where a task ends",
        Avalanche("Replay", {"mem_size": 1000}),
    ),
    # λ: at the seventh step of trec6 after sms the penalty is 0.6 nats, the loss 1.8. By no search.
    "avalanche-ewc": _avalanche(
        "Avalanche's online EWC; is told where a task ends",
        Avalanche("EWC", {"ewc_lambda": 1000.0, "mode": "online", "decay_factor": 0.99}),
    ),
}


def strategy_of(name: str) -> Strategy:
    """By a name of ``STRATEGIES``, or one with settings of the trainer that are others, each after a ``+``:
    ``default+recipe.dark_alpha=1``. What is no JSON is a string.

    Raises:
        ValueError: there is no such strategy, or no such setting.
    """
    first, *assignments = name.split("+")
    if first not in STRATEGIES:
        raise ValueError(f"no strategy is called {first}; there are {', '.join(STRATEGIES)}")
    strategy = STRATEGIES[first]
    if not assignments:
        return strategy
    for assignment in assignments:
        setting = assignment.partition("=")[0]
        if setting == "learning.seed":
            raise ValueError("the seed is an argument of its own: --seeds")
        if setting.partition(".")[0] not in Curriculum._fields:
            sections = ", ".join(Curriculum._fields)
            raise ValueError(f"no setting of a strategy is called {setting}; its sections are {sections}")
    settings = changed(Settings(**strategy.curriculum._asdict()), assignments)
    what = f"{first} with {' and '.join(assignments)}"
    return dataclasses.replace(strategy, what=what, curriculum=settings.curriculum)
