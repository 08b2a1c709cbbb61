"""Which versions answer: the live one of each line, always newest, and any other on demand.

A version is loaded, checked against its hashes and warmed beside the one that answers, then the name is flipped. Every
request keeps the version it began with. Where a new version cannot be had, the old one goes on answering, and
``trouble`` says why. At the start there is no old one: then the nearest accepted version before it answers. Where not
even the pointer can be read, nothing does: whatever was guessed could be what an operator has rolled back.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from lifelong.contracts import metrics as names
from lifelong.contracts.versions import Manifest, parse_version_key, version_key
from lifelong.errors import (
    CorruptVersionError,
    LifelongError,
    OverloadedError,
    RegistryError,
    UnknownVersionError,
    UnreachableError,
)
from lifelong.model.adapter import CONFIG_FILE, WEIGHTS_FILE, unpack_settings, unpack_state
from lifelong.model.base import BaseModel
from lifelong.model.engine import Engine, Generation
from lifelong.model.ring import GenerationRing
from lifelong.model.student import build_student
from lifelong.registry.base import PointerState
from lifelong.registry.registry import Registry, is_accepted
from lifelong.runtime.metrics import Metrics

log = logging.getLogger(__name__)


class Held(NamedTuple):
    """A version held for one request; ``generation`` must be released."""

    generation: Generation
    manifest: Manifest | None
    """``None``: the base before anything was learned."""


class Versions:
    """``refresh`` is called by one thread, ``hold`` by any number; ``hold`` may block while it loads.

    Args:
        bare_base: of the main line, never with an adapter on it.
    """

    def __init__(
        self,
        engine: Engine,
        bare_base: BaseModel,
        registry: Registry,
        metrics: Metrics,
        *,
        line: str,
        student_line: str,
        num_hot: int,
        num_pinned: int,
        retry_seconds: float = 5.0,
    ) -> None:
        """``retry_seconds``: until a version that could not be had is tried again, while the pointer stays."""
        self._engine = engine
        self._base = bare_base
        self._registry = registry
        self._metrics = metrics
        self.line = line
        self.student_line = student_line
        self._ring = GenerationRing(engine, keep=num_hot)
        self._num_pinned = num_pinned
        self._loading = threading.Lock()
        self._answered = threading.Lock()
        self._pinned: OrderedDict[str, Generation] = OrderedDict()
        self._manifests: dict[str, Manifest | None] = {}
        self._students: dict[str, BaseModel] = {}
        self._epochs: dict[str, tuple[str, int]] = {}
        """Line → when its pointers were restored, and the newest epoch seen since."""
        self._live: dict[str, int] = {}
        self._followed: set[str] = set()
        self._retry_seconds = retry_seconds
        self._failed: dict[str, tuple[PointerState, float]] = {}
        """Line → the state whose version could not be had, and when to try again."""
        self._newest = 0
        self._unanswered: set[str] = set()
        self.trouble: dict[str, str] = {}
        """Line → why its newest version does not answer."""

    @property
    def ready(self) -> bool:
        return self._ring.current(self.line) is not None

    # -- by the thread that follows the pointers -------------------------------------------------------------------

    def refresh(self) -> None:
        """Serve what is live now. Never raises for a version that cannot be had: see ``trouble``."""
        for line in (self.line, self.student_line):
            try:
                self._refresh(line, self._registry.state(line))
            except LifelongError as error:
                self._note_trouble(line, error)
        self._metrics.set(names.GENERATIONS, len(self._engine.generations()))
        self._forget_manifests()

    def _refresh(self, line: str, state: PointerState) -> None:
        restored, seen = self._epochs.get(line, (state.restored, 0))
        # Pointers that were lost and made from the manifests again know nothing of epochs without a version.
        if state.epoch < seen and state.restored == restored:
            raise RegistryError(f"the pointer is of epoch {state.epoch}, {seen} was seen: not followed")
        self._epochs[line] = state.restored, state.epoch
        self._live[line] = state.live
        is_first_look = line not in self._followed
        self._followed.add(line)
        self._metrics.set(names.VERSION, state.candidate, line=line, pointer="committed")
        if line == self.student_line and state.live == 0:
            self.trouble.pop(line, None)
            return  # Nothing was distilled yet.
        key = version_key(line, state.live)
        if self._ring.current(line) == key and self._is_well(key):
            self.trouble.pop(line, None)
            return
        failed, retry_at = self._failed.get(line, (None, 0.0))
        if failed == state and self._registry.clock.monotonic() < retry_at:
            return  # ``trouble`` is as it was.
        try:
            generation = self._ring.find(key) or self._load(line, state.live)
        except LifelongError as error:
            self._failed[line] = (state, self._registry.clock.monotonic() + self._retry_seconds)
            if self._ring.current(line) is None and isinstance(error, CorruptVersionError | UnknownVersionError):
                self._serve_earlier(line, state.live)
            raise
        self._failed.pop(line, None)
        self.trouble.pop(line, None)
        self._flip(line, state, generation, is_first_look)

    def _flip(self, line: str, state: PointerState, generation: Generation, is_first_look: bool) -> None:
        self._ring.flip(line, generation)
        self._metrics.set(names.VERSION, state.live, line=line, pointer="live")
        # What was live before this server started says nothing of how long a swap or learning takes.
        if not is_first_look and state.moved:
            self._metrics.observe(names.SWAP_SECONDS, max(0.0, self._registry.clock.now() - state.moved), line=line)
        if line == self.line:
            if not is_first_look and state.live > self._newest:
                self._unanswered.add(generation.key)
            self._newest = max(self._newest, state.live)
        log.info("%s answers", generation.key)

    def _serve_earlier(self, line: str, number: int) -> None:
        """The live version is damaged, and nothing answers yet."""
        for earlier in self._earlier(line, number):
            try:
                generation = self._load(line, earlier)
            except LifelongError as error:
                log.warning("%s: %s", version_key(line, earlier), error)
                continue
            self._ring.flip(line, generation)
            log.warning("%s answers in the place of %s", generation.key, version_key(line, number))
            return

    def _earlier(self, line: str, number: int) -> Iterator[int]:
        for earlier in range(number - 1, 0, -1):
            try:
                if is_accepted(self._registry.manifest(line, earlier)):
                    yield earlier
            except (CorruptVersionError, UnknownVersionError) as error:
                log.warning("%s: %s", version_key(line, earlier), error)
        if line == self.line:
            yield 0

    def _note_trouble(self, line: str, error: Exception) -> None:
        if self.trouble.get(line) != str(error):
            log.warning("%s: %s", line, error)
        self.trouble[line] = str(error)

    def _forget_manifests(self) -> None:
        # A version that is being loaded on demand is not among the generations yet.
        if self._loading.acquire(blocking=False):
            try:
                there = {generation.key for generation in self._engine.generations()}
                self._manifests = {key: found for key, found in self._manifests.items() if key in there}
                self._unanswered &= there
            finally:
                self._loading.release()

    def _is_well(self, key: str) -> bool:
        generation = self._ring.find(key)
        if generation is None:
            return False
        generation.release()
        return True

    # -- by those who answer ---------------------------------------------------------------------------------------

    def hold(self, model: str | None) -> Held:
        """The version that a request names: a line, ``line@number``, or ``None`` for the main line.

        Raises:
            UnknownVersionError: there is no such version. CorruptVersionError: its files are gone or damaged.
            OverloadedError: it has failed at this moment. UnreachableError: nothing answers yet.
        """
        try:
            line, number = parse_version_key(model or self.line)
        except ValueError as error:
            raise UnknownVersionError(str(error)) from error
        if line not in (self.line, self.student_line):
            raise UnknownVersionError(f"no model {model!r}: there are {self.line} and {self.student_line}")
        if number is None:
            generation = self._current(line)
        else:
            key = version_key(line, number)
            generation = self._ring.find(key) or self._pin(line, number)
        return Held(generation, self._manifests.get(generation.key))

    def _current(self, line: str) -> Generation:
        while (key := self._ring.current(line)) is not None:
            generation = self._ring.find(key)
            if generation is not None:
                return generation
            if self._ring.current(line) == key:
                raise OverloadedError(f"{key} has failed and is being loaded again; ask again")
        if line == self.line:
            raise UnreachableError(f"no version answers yet: {self.trouble.get(line, 'it is being loaded')}")
        raise UnknownVersionError(f"{line} has no version yet")

    def take_first_answer(self, key: str) -> bool:
        """Whether this is the first answer by a version that went live while we served. True once for each."""
        with self._answered:
            if key not in self._unanswered:
                return False
            self._unanswered.discard(key)
            return True

    def models(self) -> list[str]:
        """All names that can be asked for at once: lines, and versions in memory."""
        lines = [line for line in (self.line, self.student_line) if self._ring.current(line)]
        return lines + sorted({generation.key for generation in self._engine.generations()})

    def exists(self, model: str) -> bool:
        try:
            line, number = parse_version_key(model)
            if line not in (self.line, self.student_line):
                return False
            if number is None:
                return self._ring.current(line) is not None
            if number == 0:
                return line == self.line
            self._registry.manifest(line, number)
        except (ValueError, UnknownVersionError):
            return False
        return True

    def live(self, line: str) -> tuple[str | None, Manifest | None, int]:
        """(key of what answers, its manifest, the number that the pointer names)."""
        key = self._ring.current(line)
        return key, self._manifests.get(key or ""), self._live.get(line, 0)

    def _pin(self, line: str, number: int) -> Generation:
        key = version_key(line, number)
        with self._loading:
            generation = self._pinned.get(key)
            if generation is None or generation.failure is not None:
                if generation is not None:
                    self._pinned.pop(key).release()
                # No pointer names it, so it may have been made this moment, and must not be gone after a power cut.
                self._registry.store.secure(line)
                generation = self._load(line, number)
                self._pinned[key] = generation
            self._pinned.move_to_end(key)
            while len(self._pinned) > self._num_pinned:
                _, oldest = self._pinned.popitem(last=False)
                oldest.release()
            if not generation.hold():
                raise OverloadedError(f"{key} has just been taken down; ask again")
            return generation

    def _load(self, line: str, number: int) -> Generation:
        """Held for the caller.

        Raises:
            UnknownVersionError, CorruptVersionError, UnreachableError. RegistryError: it does not fit this server.
        """
        key = version_key(line, number)
        if number == 0:
            if line != self.line:
                raise UnknownVersionError(f"{key}: a student is only there once it was distilled")
            self._manifests[key] = None
            return self._engine.load(key, None)
        manifest = self._registry.manifest(line, number)
        config = self._registry.weights(manifest, CONFIG_FILE)
        state = unpack_state(self._registry.weights(manifest, WEIGHTS_FILE))
        base = self._base if manifest.kind != "student" else self._student_base(manifest)
        if manifest.base_sha256 != base.sha256:
            raise RegistryError(
                f"{key} was learned on {manifest.base} ({manifest.base_sha256[:12]}), this server has {base.name} "
                f"({base.sha256[:12]}): set model.name and model.revision to the same everywhere"
            )
        try:
            adapter = unpack_settings(config, base.num_layers)
            generation = self._engine.load(key, state, base=base, adapter=adapter)
        except (ValueError, RuntimeError) as error:
            raise RegistryError(f"{key} cannot be served: {error}") from error
        self._manifests[key] = manifest
        return generation

    def _student_base(self, manifest: Manifest) -> BaseModel:
        layers = manifest.settings.get("kept_layers", "")
        if layers not in self._students:
            try:
                kept = [int(layer) for layer in layers.split(",")]
                self._students[layers] = build_student(self._base, kept).base
            except ValueError as error:
                key = version_key(manifest.line, manifest.number)
                raise RegistryError(f"{key} is no student of {self._base.name}: {error}") from error
        return self._students[layers]
