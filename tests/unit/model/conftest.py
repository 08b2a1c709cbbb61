from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lifelong.model.base import BaseModel, load_base
from lifelong.model.settings import ModelSettings
from lifelong.model.tiny import tiny_random_model


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIFELONG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_random_model(0, folder)
    return folder


@pytest.fixture
def tiny(tiny_folder: Path) -> BaseModel:
    """A fresh one for each test: adapters are put on in place."""
    return load_base(ModelSettings(name=str(tiny_folder), dtype="float32", device="cpu"))
