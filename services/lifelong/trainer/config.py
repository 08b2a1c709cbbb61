"""Settings of the trainer."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from lifelong.config.shared import (
    ArtifactSettings,
    KafkaSettings,
    LineSettings,
    LogSettings,
    MetricsSettings,
    RedisSettings,
)
from lifelong.learning.drift_watch import DriftSettings
from lifelong.learning.gate import GateSettings
from lifelong.learning.recipe_settings import RecipeSettings
from lifelong.learning.settings import LearningSettings
from lifelong.model.settings import AdapterSettings, ModelSettings


class TrainerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    batch_size: Annotated[int, Meta(ge=1)] = 8
    """New samples that make a micro-batch full. A record is never divided, so there may be more."""
    linger_seconds: Annotated[float, Meta(ge=0)] = 2.0
    """No sample waits longer than this for the micro-batch to fill, while the trainer is free."""
    idle_seconds: Annotated[float, Meta(ge=0)] = 0.5
    """Nothing new for so long: there is nothing to wait for."""
    max_pending_samples: Annotated[int, Meta(ge=1)] = 256
    """Read from Kafka and not learnt yet. No more is read until there are fewer."""
    on_gap: Literal["stop", "skip"] = "stop"
    """When retention has deleted samples that were not learnt yet: ``stop`` ends the process with the exact gap,
    ``skip`` goes on with what is left and counts the events between as ``lost`` in the manifest. Set it for as long as
    it takes, then take it away again."""
    anchor_prompts: tuple[str, ...] = ()
    """Questions whose answers by the base are kept as they are, in the language of your users. Empty: a built-in set
    in English. Text that the base writes unasked is kept beside them. Read once, when a line begins."""


class Curriculum(NamedTuple):
    """How a micro-batch is learnt and judged: with the model and the samples, all that decides bytes."""

    learning: LearningSettings = LearningSettings()
    recipe: RecipeSettings = RecipeSettings()
    gate: GateSettings = GateSettings()
    drift: DriftSettings = DriftSettings()


class Settings(msgspec.Struct, frozen=True):
    line: LineSettings = LineSettings()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    model: ModelSettings = ModelSettings()
    adapter: AdapterSettings = AdapterSettings()
    learning: LearningSettings = LearningSettings()
    recipe: RecipeSettings = RecipeSettings()
    gate: GateSettings = GateSettings()
    drift: DriftSettings = DriftSettings()
    trainer: TrainerSettings = TrainerSettings()

    @property
    def curriculum(self) -> Curriculum:
        return Curriculum(self.learning, self.recipe, self.gate, self.drift)
