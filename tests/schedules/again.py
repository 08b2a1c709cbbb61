"""Versions trained again from the samples topic, by the boundaries in their manifests: the same to the byte."""

from __future__ import annotations

import threading

from tests.schedules.watch import Watch
from tests.schedules.world import World

from lifelong.contracts import topics
from lifelong.contracts.versions import Manifest, version_key
from lifelong.errors import CorruptVersionError, LifelongError
from lifelong.model.base import load_base
from lifelong.model.settings import ModelSettings
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry
from lifelong.stream.kafka import KafkaSource
from lifelong.trainer.history import History
from lifelong.trainer.state import ANCHORS_FILE
from lifelong.trainer.verify import verify

# Worlds beside each other share the state of torch.
_one_at_a_time = threading.Lock()


class _UpTo(Registry):
    """Knows no files of versions after a number: so training begins there at the latest."""

    def __init__(self, world: World, watch: Watch, newest: int) -> None:
        super().__init__(watch.store.store, RedisPointers(world.valkey.url))
        self._newest = newest

    def weights(self, manifest: Manifest, name: str) -> bytes:
        # The base's answers are the same in all versions, and belong to the beginning.
        if manifest.number > self._newest and name != ANCHORS_FILE:
            raise CorruptVersionError("not to be used here")
        return super().weights(manifest, name)


def differences(world: World, watch: Watch, manifest: Manifest, since: int) -> list[str]:
    """What comes out otherwise when all from version ``since`` (0: from the base) up to this one is learnt again."""
    settings = ModelSettings(name=str(world.home / "model"), dtype="float32", device="cpu", threads=1)
    history = History(lambda: KafkaSource(world.kafka_settings, [topics.SAMPLES.name]))
    with _one_at_a_time:
        try:
            registry = _UpTo(world, watch, since)
            result = verify(registry, manifest, history, settings, load_base, from_base=since == 0)
        except LifelongError as error:
            return [f"{version_key(manifest.line, manifest.number)} cannot be trained again: {error}"]
    begin = result.start.number if result.start else 0
    key = version_key(manifest.line, manifest.number)
    return [f"{key} trained again from {begin}: {text}" for text in (*result.differences, *result.excuses)]
