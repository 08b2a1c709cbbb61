"""What a run is like, from the seed: how many of which process, on how many partitions, with which settings."""

from __future__ import annotations

import random

import msgspec

from lifelong.collector.config import CollectorSettings
from lifelong.collector.config import Settings as Collector
from lifelong.config.shared import ArtifactSettings
from lifelong.distiller.config import DistillerSettings
from lifelong.distiller.config import Settings as Distiller
from lifelong.inference.config import Settings as Server
from lifelong.learning.gate import GateSettings
from lifelong.learning.settings import LearningSettings
from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.trainer.config import Settings as Trainer
from lifelong.trainer.config import TrainerSettings

_NEVER = 1e9


class RunConfig(msgspec.Struct, frozen=True):
    seed: int
    num_partitions: int
    num_collectors: int
    num_trainers: int
    num_servers: int
    num_distillers: int
    size_only: bool
    """A micro-batch is learnt when it is full, whatever time it takes: then its boundaries do not depend on time."""
    strict_gate: bool
    with_forgets: bool
    with_skew: bool
    batch_size: int
    keep_versions: int
    num_faults: int
    num_world_faults: int
    fault_seconds: float

    @property
    def has_calm_twin(self) -> bool:
        """Whether a run of the same events in which nothing fails must lead to the same weights."""
        return self.size_only and self.num_partitions == 1 and not self.with_forgets

    @property
    def calm(self) -> RunConfig:
        return msgspec.structs.replace(
            self,
            num_collectors=1,
            num_trainers=1,
            num_servers=0,
            num_distillers=0,
            num_faults=0,
            num_world_faults=0,
            with_skew=False,
        )

    @property
    def trainer(self) -> Trainer:
        wait = _NEVER if self.size_only else 2.0
        return Trainer(
            model=_MODEL,
            adapter=AdapterSettings(rank=2, fraction=1.0),
            learning=LearningSettings(
                learning_rate=3.0 if self.strict_gate else 1e-2,
                max_steps=2,
                kl_samples=0,
                replay_samples=2,
                replay_capacity=4,
                max_tokens=64,
            ),
            gate=GateSettings(
                new_tolerance_nats=0.1 if self.strict_gate else 100,
                held_out_tolerance_nats=100,
                general_tolerance_nats=100,
                general_drift_nats=100,
                held_out_ratio=0.3,
                held_out_after=1,
                recent_capacity=2,
                older_capacity=3,
                judged_samples=4,
            ),
            trainer=TrainerSettings(
                batch_size=self.batch_size,
                linger_seconds=wait,
                idle_seconds=wait / 4,
                max_pending_samples=max(8, self.batch_size),
                anchor_prompts=("Hi",),
            ),
            artifacts=ArtifactSettings(keep_versions=self.keep_versions),
        )

    @property
    def distiller(self) -> Distiller:
        return Distiller(
            model=_MODEL,
            distiller=DistillerSettings(
                rank=2,
                batch_size=2,
                steps_per_round=2,
                min_samples=2,
                buffer_samples=4,
                judged_samples=2,
                idle_seconds=3.0,
                interval_seconds=60.0,
                max_tokens=64,
            ),
            artifacts=ArtifactSettings(keep_versions=self.keep_versions),
        )

    @property
    def collector(self) -> Collector:
        return Collector(collector=CollectorSettings(max_poll_records=random.Random(self.seed).choice([1, 3, 500])))

    @property
    def server(self) -> Server:
        return Server(model=_MODEL)


_MODEL = ModelSettings(name="tiny", dtype="float32", device="cpu", threads=1)


def make_config(seed: int) -> RunConfig:
    r = random.Random(f"config {seed}")
    return RunConfig(
        seed=seed,
        num_partitions=r.choice([1, 1, 2, 3, 4]),
        num_collectors=r.choice([1, 1, 2, 3]),
        num_trainers=r.choice([1, 1, 2]),
        num_servers=r.choice([0, 1, 1, 2]),
        num_distillers=r.choice([0, 0, 0, 0, 1]),
        size_only=r.random() < 0.5,
        strict_gate=r.random() < 0.2,
        with_forgets=r.random() < 0.3,
        with_skew=r.random() < 0.2,
        batch_size=r.choice([1, 2, 3]),
        keep_versions=r.choice([2, 3, 20]),
        num_faults=r.choice([2, 4, 8, 16]),
        num_world_faults=r.choice([0, 1, 2, 3, 4]),
        fault_seconds=r.uniform(10, 50),
    )
