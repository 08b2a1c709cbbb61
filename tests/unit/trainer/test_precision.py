from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.trainer import precision
from lifelong.trainer.precision import with_dtype


@pytest.fixture
def auto(tiny_folder: Path) -> ModelSettings:
    return ModelSettings(name=str(tiny_folder), dtype="auto", device="cpu")


def steps_take(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> list[str]:
    """In which dtype steps were made, in order."""
    made: list[str] = []
    clock = itertools.count()
    now = [0.0]

    def perf_counter() -> float:
        if next(clock) % 2:
            now[0] += seconds[made[-1]]
        return now[0]

    def note(learner, *args):
        made.append(str(learner.base.model.dtype).removeprefix("torch."))
        return logits(learner, *args)

    logits = precision.AdapterLearner.logits
    monkeypatch.setattr(precision.AdapterLearner, "logits", note)
    monkeypatch.setattr(precision.time, "perf_counter", perf_counter)
    return made


@pytest.mark.parametrize(("bfloat16", "chosen"), [(0.5, "bfloat16"), (3.0, "float32")])
def test_the_quicker_one_is_taken(monkeypatch: pytest.MonkeyPatch, auto: ModelSettings, bfloat16, chosen) -> None:
    made = steps_take(monkeypatch, float32=1.0, bfloat16=bfloat16)
    assert with_dtype(auto, AdapterSettings()).dtype == chosen
    assert made == ["float32"] * 4 + ["bfloat16"] * 4


def test_what_is_hopeless_is_tried_once(monkeypatch: pytest.MonkeyPatch, auto: ModelSettings) -> None:
    made = steps_take(monkeypatch, float32=1.0, bfloat16=13.0)
    assert with_dtype(auto, AdapterSettings()).dtype == "float32"
    assert made == ["float32"] * 4 + ["bfloat16"]


def test_what_is_said_is_not_measured(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    made = steps_take(monkeypatch)
    model = ModelSettings(name=str(tiny_folder), dtype="bfloat16", device="cpu")
    assert with_dtype(model, AdapterSettings()) is model
    assert not made
