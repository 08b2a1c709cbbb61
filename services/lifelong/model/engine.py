"""What generates answers, from several versions of the model at once.

An *engine* holds *generations*. A generation is one version of the weights, made ready to answer: it is loaded and
warmed before anybody can ask it, never changes after that, and shares no computed state with another. An answer comes
from the generation that it was submitted to, from its first token to its last, whatever is loaded meanwhile.

A generation lives as long as somebody holds it. Whoever loads it holds it; each answer under way holds it; at the last
release the engine takes it down, in the background. The engine does not know which version is live: ``GenerationRing``
maps names to generations for those who ask by name.

``load`` takes as long as loading takes and is meant for a thread of its own; ``submit``, ``hold`` and ``release`` never
block. All may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from lifelong.model.answer import RunningAnswer
from lifelong.model.base import BaseModel
from lifelong.model.sampling import SamplingParams
from lifelong.model.settings import AdapterSettings


class Generation(Protocol):
    @property
    def key(self) -> str:
        """Which version this is, ``line@number``."""

    @property
    def failure(self) -> str | None:
        """Why it cannot answer any more, if so. What it was asked has been told; load the version again."""

    def hold(self) -> bool:
        """Keep it alive until ``release``; False when it is gone already."""

    def release(self) -> None: ...


class Engine(Protocol):
    @property
    def max_tokens(self) -> int:
        """Prompt and answer together: a longer request is refused or cut."""

    @property
    def num_requests(self) -> int:
        """Waiting and running."""

    def generations(self) -> Sequence[Generation]:
        """All that are in memory, oldest first."""

    def load(
        self,
        key: str,
        state: Mapping[str, torch.Tensor] | None,
        *,
        base: BaseModel | None = None,
        adapter: AdapterSettings | None = None,
    ) -> Generation:
        """Make a generation, warm it, and hold it for the caller.

        ``state`` is the adapter, or ``None`` for the bare base; ``adapter`` says its shape where it is not the engine's
        own; ``base`` is another base than the engine's own, such as a student.

        Raises:
            ValueError: the adapter does not fit the base.
            RuntimeError: it does not get through its first answer.
        """

    def submit(self, generation: Generation, prompt_ids: Sequence[int], params: SamplingParams) -> RunningAnswer:
        """Begin an answer. ``max_tokens`` is cut to what there is room for.

        Raises:
            OverloadedError: too many requests, or the generation has failed or is gone; ask again.
            ValueError: the prompt is empty or leaves no room for an answer.
        """

    def close(self) -> None:
        """Call off all answers, take all generations down, and wait until their threads have ended."""
