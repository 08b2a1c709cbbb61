from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lifelong.model import packaged


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """What was converted, without the weights: the folder appears as it does in ``_convert``, last and whole."""
    converted: list[Path] = []

    def convert(source: Path, target: Path) -> None:
        converted.append(source)
        (target.parent / "half").mkdir()
        (target.parent / "half").rename(target)

    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path))
    monkeypatch.setattr(packaged, "_gguf", lambda: Path("weights.gguf"))
    monkeypatch.setattr(packaged.importlib.metadata, "version", lambda _: "1.2.3")
    monkeypatch.setattr(packaged, "_convert", convert)
    return converted


def test_of_several_that_start_together_one_converts(conversions: list[Path], tmp_path: Path) -> None:
    start, folders = threading.Barrier(4), []

    def ask() -> None:
        start.wait()
        folders.append(packaged.packaged_model())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(conversions) == 1
    assert set(folders) == {tmp_path / "models" / "smollm2-135m-instruct-1.2.3-bf16"}
    assert folders[0].is_dir()


def test_a_conversion_that_failed_is_made_again(
    conversions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = packaged._convert

    def fail(source: Path, target: Path) -> None:
        target.with_name(f".{target.name}.123").mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(packaged, "_convert", fail)
    with pytest.raises(OSError, match="disk full"):
        packaged.packaged_model()
    monkeypatch.setattr(packaged, "_convert", whole)
    assert packaged.packaged_model().is_dir()
    assert len(conversions) == 1
