"""Forgetting, done: what has learnt it serves no more if that was asked, and is learnt again without it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing

from lifelong.contracts.events import Forget
from lifelong.contracts.versions import version_key
from lifelong.errors import StreamError, UnreachableError
from lifelong.registry.chain import ancestors
from lifelong.registry.registry import Registry, is_accepted
from lifelong.registry.writer import Writer
from lifelong.trainer.forgetting import Plan, plan
from lifelong.trainer.handler import Trainer
from lifelong.trainer.history import History
from lifelong.trainer.observed import Observed

log = logging.getLogger(__name__)


class Relearning:
    """Of one line. What raises UnreachableError may be called again from the start."""

    def __init__(self, registry: Registry, line: str, history: History, observed: Observed) -> None:
        self._registry = registry
        self._line = line
        self._history = history
        self._observed = observed
        self.withdrawn_to: int | None = None
        """The version that answers until something is forgotten; ``None``: the newest does."""

    def plan(self, trainer: Trainer, forgets: Sequence[Forget]) -> Plan:
        """Raises UnreachableError."""
        head = self._registry.manifest(self._line, trainer.number) if trainer.number else None
        try:
            return plan(self._registry, head, forgets, self._history)
        except StreamError as error:
            return Plan(None, [], {}, trouble=str(error))

    def relearn(self, trainer: Trainer, found: Plan, forgets: Sequence[Forget], on_step: Callable[[int], None]) -> None:
        """Raises UnreachableError."""
        left = len(found.batches)
        start, registry = found.start, self._registry
        files = {name: registry.weights(start, name) for name in start.files} if start else {}
        trainer.return_to(start, files, found.batches[0])
        with closing(self._history.chapters(start, found.batches)) as chapters:
            for chapter in chapters:
                number = chapter.manifest.number
                self._observed.relearning(left)
                log.info("relearning %s, %d micro-batches to go", version_key(self._line, number), left)
                trainer.relearn(chapter, found.meant_for(number, forgets), on_step)
                left -= 1
        self._observed.relearning(left)

    def withdraw(self, trainer: Trainer, forgets: Sequence[Forget], writer: Writer) -> None:
        """Serve nothing any more that has learnt what these mean. Raises UnreachableError."""
        found = self.plan(trainer, forgets)
        trainer.intake.note_withdrawn()
        if not found.first:
            return
        # One that was rejected has the weights of the one before, but that is the one with a good name.
        accepted = ancestors(self._registry, found.start) if found.start else ()
        number = next((version.number for version in accepted if is_accepted(version)), 0)
        self.withdrawn_to = number
        state = self._registry.withdraw(self._line, number, epoch=writer.epoch, writer=writer.writer_id)
        if state.live == number:
            log.warning("%s answers until what has to be forgotten at once is", version_key(self._line, number))
        else:
            log.error("an operator holds %s: it is not withdrawn", version_key(self._line, state.live))

    def withdraw_again(self, writer: Writer) -> None:
        """Where Redis was lost meanwhile, it has the newest version live again."""
        if self.withdrawn_to is None or not writer.reclaimed.is_set():
            return
        writer.reclaimed.clear()
        try:
            self._registry.withdraw(self._line, self.withdrawn_to, epoch=writer.epoch, writer=writer.writer_id)
        except UnreachableError:
            writer.reclaimed.set()
