from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.trainer import precision
from lifelong.trainer.precision import with_dtype


@pytest.fixture
def auto(tiny_folder: Path) -> ModelSettings:
    return ModelSettings(name=str(tiny_folder), dtype="auto", device="cpu")


def timed(monkeypatch: pytest.MonkeyPatch, *, product: float, step: float) -> list[str]:
    """Of bfloat16, where float32 takes a second. In which dtype steps were made, in order."""
    made: list[str] = []

    def seconds_per_step(model: ModelSettings, adapter: AdapterSettings) -> float:
        assert measured(model, adapter) > 0
        made.append(model.dtype)
        return {"bfloat16": step, "float32": 1.0}[model.dtype]

    measured = precision._seconds_per_step
    monkeypatch.setattr(precision, "_seconds_per_step", seconds_per_step)
    monkeypatch.setattr(
        precision, "_seconds_per_product", lambda dtype, device: {"bfloat16": product}.get(str(dtype)[6:], 1.0)
    )
    return made


@pytest.mark.parametrize(("step", "chosen"), [(0.5, "bfloat16"), (3.0, "float32")])
def test_the_quicker_one_is_taken(monkeypatch: pytest.MonkeyPatch, auto: ModelSettings, step, chosen) -> None:
    made = timed(monkeypatch, product=1.0, step=step)
    assert with_dtype(auto, AdapterSettings()).dtype == chosen
    assert made == ["bfloat16", "float32"]


@pytest.mark.parametrize(("product", "chosen"), [(0.1, "bfloat16"), (13.0, "float32")])
def test_what_is_hopeless_is_not_tried(monkeypatch: pytest.MonkeyPatch, auto: ModelSettings, product, chosen) -> None:
    made = timed(monkeypatch, product=product, step=1.0)
    assert with_dtype(auto, AdapterSettings()).dtype == chosen
    assert not made


def test_products_are_measured(auto: ModelSettings) -> None:
    assert precision._seconds_per_product(torch.float32, torch.device("cpu")) > 0
    assert with_dtype(auto, AdapterSettings()).dtype in ("bfloat16", "float32")


def test_what_is_said_is_not_measured(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    made = timed(monkeypatch, product=1.0, step=1.0)
    model = ModelSettings(name=str(tiny_folder), dtype="bfloat16", device="cpu")
    assert with_dtype(model, AdapterSettings()) is model
    assert not made
