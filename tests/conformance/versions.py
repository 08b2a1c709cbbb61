"""Manifests for tests of the registry."""

from __future__ import annotations

from lifelong.contracts.versions import Manifest, Verdict


def manifest(line: str, number: int, *, epoch: int = 1, accepted: bool | None = True) -> Manifest:
    """A child of the version before it, without files. ``accepted=None``: no gate has judged it."""
    return Manifest(
        line=line,
        number=number,
        parent=number - 1 if number > 1 else None,
        kind="active",
        base="tiny",
        base_sha256="b" * 64,
        epoch=epoch,
        created=1000.0 + number,
        weights_sha256="a" * 64,
        files={},
        folder="",
        watermarks={0: number},
        positions={0: number},
        verdict=None if accepted is None else Verdict(accepted, "test"),
    )
