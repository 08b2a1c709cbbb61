"""Train a version again from the events that its manifests claim, and compare.

That is what makes lineage more than a promise: equal hashes say that these events, in these micro-batches, and nothing
else have led to these weights. The promise is for one CPU and one set of libraries; sums come out otherwise elsewhere.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import torch

from lifelong.contracts.samples import Sample
from lifelong.contracts.versions import Manifest, version_key
from lifelong.errors import CorruptVersionError
from lifelong.model.base import BaseModel
from lifelong.model.hashing import combined_sha256, tensor_hashes
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import ModelSettings
from lifelong.registry.chain import ancestors, batches_since
from lifelong.registry.registry import Registry
from lifelong.runtime.clock import SystemClock
from lifelong.trainer.config import Settings
from lifelong.trainer.forgetting import Plan
from lifelong.trainer.handler import Trainer
from lifelong.trainer.history import History
from lifelong.trainer.recorded import adapter_of, as_recorded, curriculum_of, recorded_settings
from lifelong.trainer.state import ANCHORS_FILE, unpack_samples

log = logging.getLogger(__name__)

# What decides the bytes but is of the machine and not of the line.
_ENVIRONMENT = ("torch", "transformers", "peft", "device", "dtype", "threads")


class Result(NamedTuple):
    manifest: Manifest
    start: Manifest | None
    """Where the training began; ``None``: with the base."""
    batches: list[Manifest]
    """Learnt again, in this order."""
    num_samples: int
    differences: list[str]
    """What came out otherwise; empty: all is the same to the byte."""
    excuses: list[str]
    """What is another than when the version was learnt, and may be why."""
    seconds: float


def verify(
    registry: Registry,
    manifest: Manifest,
    history: History,
    model: ModelSettings,
    load: Callable[[ModelSettings], BaseModel],
    *,
    from_base: bool = False,
) -> Result:
    """
    Args:
        manifest: of an active line.
        load: the base, ready for an adapter to be put on it.
        from_base: train all of it again, and not only since the nearest ancestor whose files are there.

    Raises:
        StreamGapError: retention has deleted samples it was learnt from. StreamError. RegistryError. UnreachableError.
        ConfigError: it cannot be learnt again with this base.
    """
    started = time.monotonic()
    start, files = (None, {}) if from_base else _start(registry, manifest)
    batches = batches_since(registry, manifest, start.number if start else 0)
    with _as_learnt(manifest):
        trainer = _trainer(manifest, as_recorded(model, manifest), load)
        trainer.return_to(start, files, batches[0], _anchors(registry, manifest))
        forgets = {c.manifest.number: c.forgets for c in history.chapters(start, batches) if c.forgets}
        plan = Plan(start, batches, forgets)
        num_samples = 0
        with closing(history.chapters(start, batches)) as chapters:
            for chapter in chapters:
                log.info("training %s again", version_key(manifest.line, chapter.manifest.number))
                report = trainer.relearn(chapter, plan.meant_for(chapter.manifest.number, ()))
                num_samples += len(report.new)
        differences = _differences(trainer, manifest)
        excuses = _excuses(trainer, manifest)
    return Result(manifest, start, batches, num_samples, differences, excuses, time.monotonic() - started)


def _start(registry: Registry, manifest: Manifest) -> tuple[Manifest | None, dict[str, bytes]]:
    for version in ancestors(registry, manifest):
        if version.number != manifest.number:
            try:
                return version, {name: registry.weights(version, name) for name in version.files}
            except CorruptVersionError as error:
                log.info("not from %s: %s", version_key(version.line, version.number), error)
    return None, {}


def _anchors(registry: Registry, manifest: Manifest) -> list[Sample]:
    """As they were taken down when the line began, from the version itself if it is there."""
    for version in ancestors(registry, manifest):
        try:
            return unpack_samples(registry.weights(version, ANCHORS_FILE), ANCHORS_FILE)
        except CorruptVersionError:
            continue
    key = version_key(manifest.line, manifest.number)
    raise CorruptVersionError(f"neither {key} nor any version that it comes from has its files any more")


def _trainer(manifest: Manifest, model: ModelSettings, load: Callable[[ModelSettings], BaseModel]) -> Trainer:
    curriculum, adapter = curriculum_of(manifest), adapter_of(manifest)
    learning, recipe, gate, drift = curriculum
    learner = AdapterLearner(load(model), adapter, seed=learning.seed, max_tokens=learning.max_tokens)
    settings = Settings(model=model, adapter=adapter, learning=learning, recipe=recipe, gate=gate, drift=drift)
    return Trainer(learner, settings, SystemClock())


@contextmanager
def _as_learnt(manifest: Manifest) -> Iterator[None]:
    """The threads of torch, and no other kernels than the trainer's, for as long as this lasts."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    torch.set_num_threads(int(manifest.settings["threads"]))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def _differences(trainer: Trainer, manifest: Manifest) -> list[str]:
    found = []
    weights = combined_sha256(tensor_hashes(trainer.schooling.served_state()))
    if weights != manifest.weights_sha256:
        found.append(f"weights: {weights[:12]} and not {manifest.weights_sha256[:12]}")
    for name, data in trainer.schooling.files().items():
        entry = manifest.files.get(name)
        if entry is not None and hashlib.sha256(data).hexdigest() != entry.sha256:
            found.append(f"{name}: other bytes")
    if trainer.watermarks != manifest.watermarks:
        found.append(f"watermarks: {trainer.watermarks} and not {manifest.watermarks}")
    return found


def _excuses(trainer: Trainer, manifest: Manifest) -> list[str]:
    here = recorded_settings(trainer.learner, trainer.settings)
    return [
        f"{name} was {manifest.settings[name]}, here it is {here.get(name)}"
        for name in _ENVIRONMENT
        if name in manifest.settings and manifest.settings[name] != here.get(name)
    ]
