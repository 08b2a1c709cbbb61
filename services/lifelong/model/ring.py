"""Names for generations: which one answers for a name now, and which earlier ones are kept hot."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence

from lifelong.errors import UnknownVersionError
from lifelong.model.answer import RunningAnswer
from lifelong.model.engine import Engine, Generation
from lifelong.model.sampling import SamplingParams


class GenerationRing:
    """A name is a line such as ``lifelong``; its newest generation answers for it. Methods never block."""

    def __init__(self, engine: Engine, *, keep: int = 2) -> None:
        """``keep``: generations per name that stay in memory, the current one included; so a rollback is a flip."""
        assert keep >= 1
        self._engine = engine
        self._keep = keep
        self._lock = threading.Lock()
        self._held: dict[str, list[Generation]] = defaultdict(list)

    def flip(self, name: str, generation: Generation) -> None:
        """From now on ``generation`` answers for ``name``. The ring takes over the caller's hold on it."""
        with self._lock:
            held = self._held[name]
            twice = generation in held
            if twice:
                held.remove(generation)
            held.append(generation)
            dropped = held[: -self._keep]
            self._held[name] = held[-self._keep :]
        if twice:
            generation.release()
        for old in dropped:
            old.release()

    def find(self, key: str) -> Generation | None:
        """A hot generation by its key, held for the caller; ``None`` when it is not in memory."""
        with self._lock:
            for held in self._held.values():
                for generation in held:
                    if generation.key == key and generation.failure is None and generation.hold():
                        return generation
        return None

    def current(self, name: str) -> str | None:
        """The key of what answers for ``name``."""
        with self._lock:
            held = self._held.get(name)
            return held[-1].key if held else None

    def submit(self, name: str, prompt_ids: Sequence[int], params: SamplingParams) -> RunningAnswer:
        """Begin an answer by what answers for ``name`` at this moment, or by a hot version if ``name`` is its key.

        Raises:
            UnknownVersionError: nothing of that name is in memory.
            OverloadedError, ValueError: as ``Engine.submit``.
        """
        with self._lock:
            held = self._held.get(name)
            generation = held[-1] if held and held[-1].hold() else None
        generation = generation or self.find(name)
        if generation is None:
            raise UnknownVersionError(f"no version {name!r} is ready to answer")
        try:
            return self._engine.submit(generation, prompt_ids, params)
        finally:
            generation.release()
