"""Which micro-batches have to be learnt again so that a version is as if it had never seen something.

The definition: version N is what comes of its micro-batches, learnt one after the other from the beginning, each
without what a request to forget that came after it, and not after N, has named. So the way back is to the newest
ancestor that has nothing of it, and from there through all micro-batches since, each under its old number (draws are by
number) and with its old settings.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from lifelong.contracts.events import Forget
from lifelong.contracts.samples import must_be_forgotten
from lifelong.contracts.versions import Manifest, version_key
from lifelong.errors import CorruptVersionError
from lifelong.registry.chain import ancestors, batches_since
from lifelong.registry.registry import Registry
from lifelong.trainer.history import Chapter, History

log = logging.getLogger(__name__)


class Plan(NamedTuple):
    start: Manifest | None
    """The version to go back to; ``None``: the beginning."""
    batches: list[Manifest]
    """To be learnt again from there. Empty: no version has learnt any of it."""
    forgets: dict[int, list[Forget]]
    """Number of a micro-batch → what was to be forgotten from there on."""
    first: int = 0
    """Number of the first version that has learnt some of it; 0: none has."""
    trouble: str | None = None
    """Why it cannot be taken out of the weights, or not for certain."""

    def meant_for(self, number: int, forgets: Sequence[Forget]) -> list[Forget]:
        """What to leave out of a micro-batch: what it and later ones were told to forget, and now ``forgets``."""
        return [f for later, found in self.forgets.items() if later >= number for f in found] + list(forgets)


def plan(registry: Registry, head: Manifest | None, forgets: Sequence[Forget], history: History) -> Plan:
    """
    Args:
        head: the newest version.

    Raises:
        UnreachableError: to be called again. RegistryError, StreamError.
    """
    if head is None:
        return Plan(None, [], {})
    batches = batches_since(registry, head, 0)
    index = history.reaches_back_to(batches)
    relearnt = {number for version in ancestors(registry, head) for number in version.relearned}
    earlier: dict[int, list[Forget]] = {}
    first = None
    with closing(history.chapters(batches[index - 1] if index else None, batches[index:])) as chapters:
        for chapter in chapters:
            if chapter.forgets:
                earlier[chapter.manifest.number] = chapter.forgets
            if first is None and _may_have_learnt(chapter, forgets, chapter.manifest.number in relearnt):
                first = chapter.manifest
    trouble = None
    if index:
        trouble = (
            f"of what was learnt up to {version_key(head.line, batches[index - 1].number)} the samples are gone "
            "(retention), so whether it has any of this nobody can tell"
        )
    if first is None:
        return Plan(None, [], earlier, 0, trouble)
    clean = {batch.number for batch in batches[: batches.index(first)]}
    for version in ancestors(registry, head):
        if version.number in clean and _is_whole(registry, version):
            since = batches_since(registry, head, version.number)
            return Plan(version, since, earlier, first.number, trouble)
    if index:
        nowhere = f"no version before {first.number} is there to begin from, and {trouble}"
        return Plan(None, [], earlier, first.number, nowhere)
    return Plan(None, batches, earlier, first.number)


def _may_have_learnt(chapter: Chapter, forgets: Sequence[Forget], was_relearnt: bool) -> bool:
    """What its manifest lists it has learnt at first. Relearnt without something, it may have learnt another sample,
    which that one had superseded: then all that came counts."""
    listed = {id for batch in chapter.manifest.batches for id in (*batch.samples, *batch.held_out)}
    return any(
        (was_relearnt or sample.id in listed) and any(must_be_forgotten(sample, forget) for forget in forgets)
        for sample in chapter.samples
    )


def _is_whole(registry: Registry, version: Manifest) -> bool:
    try:
        for name in version.files:
            registry.weights(version, name)
    except CorruptVersionError as error:
        log.info("not from %s: %s", version_key(version.line, version.number), error)
        return False
    return True
