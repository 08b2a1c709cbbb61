from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import torch

from lifelong.contracts import topics
from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample, SampleRecord
from lifelong.model.base import load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import ModelSettings
from lifelong.model.tiny import tiny_random_model
from lifelong.runtime.clock import ManualClock
from lifelong.stream.base import Record
from lifelong.trainer.config import Settings
from lifelong.trainer.handler import Trainer


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
def new_trainer(tiny_folder: Path) -> Callable[..., Trainer]:
    """A trainer that neither began nor was restored."""

    def make(settings: Settings, clock: ManualClock | None = None) -> Trainer:
        base = load_base(ModelSettings(name=str(tiny_folder), dtype="float32", device="cpu"))
        learner = AdapterLearner(
            base, settings.adapter, seed=settings.learning.seed, max_tokens=settings.learning.max_tokens
        )
        return Trainer(learner, settings, clock or ManualClock())

    return make


def sample_of(number: int, *, partition: int = 0, task: str = "fact", until_known: bool = True, **fields) -> Sample:
    question, answer = (
        fields.pop("question", f"What is {number} of {partition}?"),
        fields.pop("answer", f"It is {number * 7}."),
    )
    return Sample(
        id=f"{partition}-{number}-0",
        event_id=f"e{partition}-{number}",
        event_time=1_699_999_000.0 + number,
        task=task,
        messages=(Message("user", question), Message("assistant", answer)),
        until_known=until_known,
        **fields,
    )


@pytest.fixture
def new_sample() -> Callable[..., Sample]:
    return sample_of


@pytest.fixture
def new_record() -> Callable[..., Record]:
    """A record of the samples topic. Source offset ``number``, and the same position in the samples topic unless
    ``offset`` says otherwise."""

    def make(number: int, *samples: Sample, partition: int = 0, offset: int | None = None, **fields) -> Record:
        record = SampleRecord(
            source_topic=topics.EVENTS.name,
            source_partition=partition,
            from_offset=fields.pop("from_offset", number),
            to_offset=number + 1,
            outcome=fields.pop("outcome", "sample"),
            samples=samples,
            **fields,
        )
        return Record(
            topics.SAMPLES.name,
            partition,
            number if offset is None else offset,
            None,
            msgspec.json.encode(record),
            (),
            1_700_000_000.0,
        )

    return make


@pytest.fixture
def fact_stream(new_record) -> Callable[[int], list[Record]]:
    """That many facts, over two partitions."""

    def make(num_records: int) -> list[Record]:
        turns = itertools.cycle((0, 1, 0))
        next_offset = [0, 0]
        records = []
        for _ in range(num_records):
            partition = next(turns)
            number = next_offset[partition]
            next_offset[partition] += 1
            sample = sample_of(number, partition=partition)
            records.append(new_record(number, sample, partition=partition))
        return records

    return make
