"""Teacher and student on one base: they share its tensors, each has an adapter of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import torch

from lifelong.contracts.versions import Manifest
from lifelong.distiller.config import Settings
from lifelong.errors import ConfigError
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
from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.model.student import Student, build_student, make_student

ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE)
"""What is needed of a version of the main line."""
KEPT_LAYERS = "kept_layers"
"""In the settings of a student's manifest: the layers of the base that it has, separated by commas."""


class Models:
    """Args: newest: the student's newest version; without one its layers are chosen now.

    Raises:
        ConfigError: base or shape of the student are not those of ``newest``.
    """

    def __init__(
        self,
        settings: Settings,
        newest: Manifest | None,
        load: Callable[[ModelSettings], BaseModel] = load_base,
    ) -> None:
        self._settings = settings
        self._base = load(settings.model)
        s = settings.distiller
        num_layers = max(1, round(s.keep_layers * self._base.num_layers))
        if newest is None:
            student = make_student(self._base, num_layers, PROMPTS)
        else:
            student = _built(self._base, newest)
            _check_same("rank", newest.settings["distiller.rank"], s.rank, newest)
            _check_same("keep_layers", f"{len(student.kept_layers)} layers", f"{num_layers} layers", newest)
        self.kept_layers = student.kept_layers
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

    def load_teacher(self, manifest: Manifest, files: Mapping[str, bytes]) -> None:
        """Take the weights of a version of the main line.

        Raises:
            ConfigError: it was learnt on another base. CorruptVersionError: not an adapter's files.
        """
        if manifest.base_sha256 != self._base.sha256:
            raise _other_base(manifest, self._base)
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


def _built(base: BaseModel, newest: Manifest) -> Student:
    try:
        student = build_student(base, [int(layer) for layer in newest.settings[KEPT_LAYERS].split(",")])
    except ValueError as error:
        raise _other_base(newest, base) from error
    if newest.base_sha256 != student.base.sha256:
        raise _other_base(newest, student.base)
    return student


def _other_base(manifest: Manifest, base: BaseModel) -> ConfigError:
    return ConfigError(
        "model.name",
        f"line {manifest.line!r} was learnt on {manifest.base} ({manifest.base_sha256[:12]}), this is {base.name} "
        f"({base.sha256[:12]}); set it to the same everywhere, or line.name to begin a new line",
    )


def _check_same(name: str, recorded: object, wanted: object, newest: Manifest) -> None:
    if str(recorded) != str(wanted):
        raise ConfigError(
            f"distiller.{name}",
            f"line {newest.line!r} was begun with {recorded}, this would be {wanted}; a student keeps its shape: set "
            "it back, or line.name to begin a new line",
        )
