"""The methods by name: what the settings may say. A new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable

from lifelong.learning import online
from lifelong.learning.optimizers import SGD, AdamW, Optimizer
from lifelong.learning.replay import BalancedReservoir, Reservoir
from lifelong.learning.surprise import SurpriseReservoir

METHODS: dict[str, Callable[..., online.Lesson]] = {"until-known": online.learn}
OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "sgd": SGD}
REPLAYS: dict[str, type[Reservoir]] = {
    "reservoir": Reservoir,
    "balanced": BalancedReservoir,
    "surprise": SurpriseReservoir,
}
