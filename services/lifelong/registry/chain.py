"""What a version is made of: its ancestors, and the micro-batches that lead to it.

Mostly a version is its parent and one micro-batch. Where something had to be forgotten, it is an older version and
several micro-batches, learnt again. So there are two walks: over *versions*, along ``parent``, and over
*micro-batches*, which are named by the version that learnt them first.
"""

from __future__ import annotations

from collections.abc import Iterator

from lifelong.contracts.versions import Manifest
from lifelong.registry.registry import Registry


def ancestors(registry: Registry, manifest: Manifest) -> Iterator[Manifest]:
    """The version, its parent, and so on to the first. Raises UnknownVersionError, CorruptVersionError."""
    yield manifest
    while manifest.parent:
        manifest = registry.manifest(manifest.line, manifest.parent)
        yield manifest


def batches_since(registry: Registry, manifest: Manifest, ancestor: int) -> list[Manifest]:
    """The micro-batches that lead from ``ancestor`` (0: from the beginning) to the version, in the order in which they
    were learnt, each as the manifest that has its boundaries.

    Raises:
        ValueError: ``ancestor`` is none. UnknownVersionError, CorruptVersionError.
    """
    found: list[Manifest] = []
    for version in ancestors(registry, manifest):
        if version.number == ancestor:
            break
        found.append(version)
        found += [registry.manifest(version.line, number) for number in reversed(version.relearned)]
    else:
        if ancestor:
            raise ValueError(f"version {ancestor} is no ancestor of version {manifest.number}")
    return found[::-1]
