from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.model.base import load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.model.tiny import tiny_random_model

NewSample = Callable[..., Sample]


@pytest.fixture(autouse=True, scope="session")
def _deterministic() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
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
def new_learner(tiny_folder: Path) -> Callable[[], AdapterLearner]:
    def make() -> AdapterLearner:
        base = load_base(ModelSettings(name=str(tiny_folder), dtype="float32", device="cpu"))
        learner = AdapterLearner(base, AdapterSettings(), seed=0, max_tokens=256)
        # With B = 0 as it starts half of all gradients are zero.
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in learner.parameters.values():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        return learner

    return make


@pytest.fixture
def learner(new_learner: Callable[[], AdapterLearner]) -> AdapterLearner:
    return new_learner()


@pytest.fixture
def new_sample() -> NewSample:
    def make(number: int, *, task: str = "fact", answer: str | None = None, **fields: object) -> Sample:
        messages = (Message("user", f"What is {number}?"), Message("assistant", answer or f"It is {number * 7}."))
        return Sample(id=f"0-{number}-0", event_id=f"e{number}", event_time=1e9, task=task, messages=messages, **fields)

    return make
