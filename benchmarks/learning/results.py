"""One JSON for each run."""

from __future__ import annotations

from pathlib import Path

import msgspec
from benchmarks.learning.run import Result


def path_of(folder: Path, stream: str, strategy: str, seed: int) -> Path:
    return folder / stream / f"{strategy}-{seed}.json"


def load(path: Path) -> Result | None:
    """``None``: there is none. Raises ValueError: it is not of this form any more; delete it."""
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path} is of another form ({error}); delete it to have it made again") from error


def load_all(folder: Path) -> list[Result]:
    return [result for path in sorted(folder.glob("*/*.json")) if (result := load(path)) is not None]


def save(path: Path, result: Result) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = msgspec.json.format(msgspec.json.encode(_rounded(msgspec.to_builtins(result))), indent=1)
    part = path.with_suffix(".part")
    part.write_bytes(data + b"\n")
    part.replace(path)


def _rounded(value: object) -> object:
    """Six digits: what comes after is of the machine."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(inner) for inner in value]
    return value
