"""Settings of the distiller."""

from __future__ import annotations

from typing import Annotated, Literal

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
from lifelong.model.settings import ModelSettings


class DistillerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keep_layers: Annotated[float, Meta(gt=0, le=1)] = 0.7
    """Share of the base's layers that the student keeps; a block of the least needed ones is left out."""
    rank: Annotated[int, Meta(ge=1)] = 16
    """Of the student's adapter, which sits on all its layers: it has more to make up for than the online learner."""
    alpha: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """α of L = α CE + (1-α) T² KL: 0 listens to the teacher only, 1 to the data only."""
    temperature: Annotated[float, Meta(gt=0)] = 2.0
    """T, by which both distributions are softened."""
    direction: Literal["teacher-student", "student-teacher"] = "teacher-student"
    learning_rate: Annotated[float, Meta(gt=0)] = 2e-3
    batch_size: Annotated[int, Meta(ge=1)] = 8
    steps_per_round: Annotated[int, Meta(ge=1)] = 24
    """Optimizer steps between two versions of the student."""
    min_samples: Annotated[int, Meta(ge=1)] = 4
    """Before the first round."""
    buffer_samples: Annotated[int, Meta(ge=1)] = 2000
    """Samples kept to distil on, a uniform choice of all there were."""
    judged_ratio: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    """Of the samples, kept apart to judge the student on."""
    judged_samples: Annotated[int, Meta(ge=1)] = 32
    """Kept apart at most."""
    idle_seconds: Annotated[float, Meta(ge=0)] = 5.0
    """No new sample and no new version for so long starts a round, if the teacher has changed since the last."""
    interval_seconds: Annotated[float, Meta(gt=0)] = 300.0
    """A round starts at the latest so long after the last (or the start), however busy the stream is."""
    on_drift: bool = False
    """A round starts at once when the teacher has seen drift since the last (``drift.detector`` of the trainer), before
    what it knew is overwritten."""
    max_tokens: Annotated[int, Meta(ge=8)] = 512
    """Of one sample; what is longer is cut."""
    tokens_per_pass: Annotated[int, Meta(ge=8)] = 2048
    """That go through the models at once."""
    seed: int = 0


class Settings(msgspec.Struct, frozen=True):
    line: LineSettings = LineSettings()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    model: ModelSettings = ModelSettings()
    distiller: DistillerSettings = DistillerSettings()
