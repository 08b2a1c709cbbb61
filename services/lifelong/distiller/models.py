"""Teacher and student on one base: they share its tensors, each has an adapter of its own."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import torch

from lifelong.contracts.versions import Manifest
from lifelong.distiller.config import Settings
from lifelong.learning.anchor import PROMPTS
from lifelong.model.adapter import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    load_adapter_state,
    unpack_settings,
    unpack_state,
)
from lifelong.model.base import BaseModel, load_base, view_of
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings
from lifelong.model.student import build_student, make_student

KEPT_LAYERS = "kept_layers"
"""In the settings of a student's manifest: the layers of the base that it has, separated by commas."""


class Models:
    """Args: newest: the student's newest version; without one its layers are chosen now."""

    def __init__(self, settings: Settings, newest: Manifest | None) -> None:
        self._settings = settings
        self._base: BaseModel = load_base(settings.model)
        if newest is not None:
            kept = [int(layer) for layer in newest.settings[KEPT_LAYERS].split(",")]
            student = build_student(self._base, kept)
        else:
            num_layers = max(1, round(settings.distiller.keep_layers * self._base.num_layers))
            student = make_student(self._base, num_layers, PROMPTS)
        self.kept_layers = student.kept_layers
        s = settings.distiller
        self.student = AdapterLearner(
            student.base,
            AdapterSettings(rank=s.rank, alpha=2 * s.rank, fraction=1.0),
            seed=s.seed,
            max_tokens=s.max_tokens,
        )
        self._teacher: AdapterLearner | None = None

    @property
    def teacher(self) -> AdapterLearner:
        assert self._teacher is not None, "no teacher was loaded"
        return self._teacher

    def load_teacher(self, files: Mapping[str, bytes]) -> None:
        """Take the weights of a version of the main line."""
        if self._teacher is None:
            adapter = unpack_settings(files[CONFIG_FILE], self._base.num_layers)
            # A view, so that the base itself stays bare.
            self._teacher = AdapterLearner(
                view_of(self._base), adapter, seed=0, max_tokens=self._settings.distiller.max_tokens
            )
        load_adapter_state(self._teacher.model, unpack_state(files[WEIGHTS_FILE]))

    def draft(self, *, line: str, number: int, epoch: int, created: float, teacher: str) -> Manifest:
        """A manifest with all that does not depend on what will be learned."""
        recorded = {
            KEPT_LAYERS: ",".join(map(str, self.kept_layers)),
            "dtype": str(self.student.base.dtype).removeprefix("torch."),
            "threads": str(torch.get_num_threads()),
            "torch": str(torch.__version__),
        }
        for name, value in msgspec.structs.asdict(self._settings.distiller).items():
            recorded[f"distiller.{name}"] = str(value)
        return Manifest(
            line=line,
            number=number,
            parent=number - 1,
            kind="student",
            base=self.student.base.name,
            base_sha256=self.student.base.sha256,
            epoch=epoch,
            created=created,
            weights_sha256="",
            files={},
            folder="",
            watermarks={},
            positions={},
            settings=recorded,
            teacher=teacher,
        )
