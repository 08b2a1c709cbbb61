"""What decides the bytes of a version besides the data, as the manifest has it, and how it is taken up again."""

from __future__ import annotations

import ast
import logging
from typing import Any, TypeVar

import msgspec
import peft
import torch
import transformers

from lifelong.contracts.versions import Manifest
from lifelong.learning.drift_watch import DriftSettings
from lifelong.learning.gate import GateSettings
from lifelong.learning.recipe_settings import PLAIN, RecipeSettings
from lifelong.learning.settings import LearningSettings
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.trainer.config import Curriculum, Settings

log = logging.getLogger(__name__)

_UNRECORDED: dict[str, dict[str, Any]] = {
    "learning": {"step_samples": 0},
    "recipe": msgspec.structs.asdict(PLAIN),
    "gate": {"known_nats": 0.0, "contradiction_significance": 0.05, "other_tasks_tolerance_nats": 0.0},
}
"""What was so before there was a setting for it."""

S = TypeVar("S", bound=msgspec.Struct)


def recorded_settings(learner: AdapterLearner, settings: Settings) -> dict[str, str]:
    recorded: dict[str, Any] = {
        "dtype": str(learner.base.dtype).removeprefix("torch."),
        "device": learner.base.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "learning.optimizer": settings.learning.optimizer,
    }
    for section in ("adapter", "learning", "recipe", "gate", "drift"):
        for name, value in msgspec.structs.asdict(getattr(settings, section)).items():
            recorded[f"{section}.{name}"] = value
    return {name: str(value) for name, value in recorded.items()}


def curriculum_of(manifest: Manifest) -> Curriculum:
    """How the version was learnt and judged."""
    return Curriculum(
        _section(manifest, "learning", LearningSettings),
        _section(manifest, "recipe", RecipeSettings),
        _section(manifest, "gate", GateSettings),
        _section(manifest, "drift", DriftSettings),
    )


def adapter_of(manifest: Manifest) -> AdapterSettings:
    return _section(manifest, "adapter", AdapterSettings)


def _section(manifest: Manifest, section: str, kind: type[S]) -> S:
    fields = {field.name for field in msgspec.structs.fields(kind)}
    values = _UNRECORDED.get(section, {}) | {
        name: _parsed(value)
        for key, value in manifest.settings.items()
        if key.startswith(section + ".") and (name := key.removeprefix(section + ".")) in fields
    }
    return msgspec.convert(values, kind, strict=False)


def _parsed(value: str) -> Any:
    """Texts, numbers and names stay as they are: ``msgspec.convert`` knows what they should be."""
    if value == "None":
        return None
    return ast.literal_eval(value) if value.startswith("(") else value


def as_recorded(model: ModelSettings, manifest: Manifest) -> ModelSettings:
    """The settings with what they leave open filled in as the line had it: its dtype, its number of threads."""
    changes: dict[str, Any] = {}
    if model.dtype == "auto":
        changes["dtype"] = manifest.settings["dtype"]
    elif model.dtype != manifest.settings["dtype"]:
        log.warning("model.dtype changes from %s to %s", manifest.settings["dtype"], model.dtype)
    if not model.threads and manifest.settings["device"] == "cpu":
        changes["threads"] = int(manifest.settings["threads"])
    return msgspec.structs.replace(model, **changes)
