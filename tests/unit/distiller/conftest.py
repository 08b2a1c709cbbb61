from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.distiller.config import DistillerSettings
from lifelong.distiller.handler import Distiller
from lifelong.model.base import BaseModel, load_base, view_of
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.model.student import make_student
from lifelong.model.tiny import tiny_random_model


@pytest.fixture(autouse=True, scope="session")
def _deterministic() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    # The app asks for them.
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_random_model(0, folder)
    return folder


@pytest.fixture
def base(tiny_folder: Path) -> BaseModel:
    return load_base(ModelSettings(name=str(tiny_folder), dtype="float32", device="cpu"))


@pytest.fixture
def settings() -> DistillerSettings:
    return DistillerSettings(
        min_samples=2, steps_per_round=12, batch_size=4, rank=8, learning_rate=5e-3, idle_seconds=5, judged_ratio=0.2
    )


@pytest.fixture
def teacher(base: BaseModel) -> AdapterLearner:
    return AdapterLearner(view_of(base), AdapterSettings(rank=4, alpha=8), seed=1, max_tokens=64)


@pytest.fixture
def new_student(base: BaseModel) -> Callable[[], AdapterLearner]:
    def make() -> AdapterLearner:
        student = make_student(view_of(base), 3, ["Some text to choose layers by."])
        return AdapterLearner(student.base, AdapterSettings(rank=8, alpha=16, fraction=1.0), seed=0, max_tokens=64)

    return make


@pytest.fixture
def new_distiller(new_student: Callable[[], AdapterLearner], settings: DistillerSettings) -> Callable[..., Distiller]:
    def make(**changes: Any) -> Distiller:
        return Distiller(new_student(), msgspec.structs.replace(settings, **changes), now=0.0)

    return make


def sample_of(number: int, **fields: object) -> Sample:
    return Sample(
        id=f"0-{number}-0",
        event_id=f"e{number}",
        event_time=100.0 + number,
        task="fact",
        messages=(Message("user", f"What is {number}?"), Message("assistant", f"It is {number * 7}.")),
        **fields,
    )


@pytest.fixture
def new_sample() -> Callable[..., Sample]:
    return sample_of
