"""The engine on this machine: transformers, PyTorch, CPU or CUDA."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Mapping, Sequence

import msgspec
import torch

from lifelong.errors import OverloadedError
from lifelong.model.answer import RunningAnswer
from lifelong.model.base import BaseModel, view_of
from lifelong.model.engine import Generation
from lifelong.model.generation import AdapterTemplate, LocalGeneration
from lifelong.model.sampling import SamplingParams
from lifelong.model.settings import AdapterSettings, EngineSettings

log = logging.getLogger(__name__)


class BatchingEngine:
    """See ``engine.Engine``. The base must stay as it is: adapters go on views of it."""

    def __init__(self, base: BaseModel, adapter: AdapterSettings, settings: EngineSettings) -> None:
        self._base, self._adapter, self._settings = base, adapter, settings
        self._lock = threading.Lock()
        self._generations: list[LocalGeneration] = []
        self._templates: dict[tuple[str, AdapterSettings], AdapterTemplate] = {}
        self._num_requests = 0
        self._closed = False
        self._unheld: queue.SimpleQueue[LocalGeneration | None] = queue.SimpleQueue()
        # A generation's last release often happens in its own thread, which cannot wait for itself.
        self._reaper = threading.Thread(target=self._take_down, name="engine reaper", daemon=True)
        self._reaper.start()

    @property
    def max_tokens(self) -> int:
        return min(self._settings.cache_tokens, self._base.max_context)

    @property
    def num_requests(self) -> int:
        return self._num_requests

    def generations(self) -> list[Generation]:
        with self._lock:
            return list(self._generations)

    def load(
        self,
        key: str,
        state: Mapping[str, torch.Tensor] | None,
        *,
        base: BaseModel | None = None,
        adapter: AdapterSettings | None = None,
    ) -> LocalGeneration:
        base = base or self._base
        template = None if state is None else self._template(base, adapter or self._adapter)
        model = view_of(base).model if template is None or state is None else template.view(state)
        generation = LocalGeneration(key, base, model, self._settings, unheld=self._unheld.put, answered=self._answered)
        with self._lock:
            closed = self._closed
            if not closed:
                self._generations.append(generation)
        if closed:
            generation.close()
            raise RuntimeError("the engine is closed")
        self._warm(generation, base)
        return generation

    def submit(self, generation: Generation, prompt_ids: Sequence[int], params: SamplingParams) -> RunningAnswer:
        assert isinstance(generation, LocalGeneration)
        room = self.max_tokens - len(prompt_ids)
        if not prompt_ids:
            raise ValueError("the prompt is empty")
        if room < 1:
            raise ValueError(f"the prompt has {len(prompt_ids)} tokens; at most {self.max_tokens - 1} are possible")
        if params.seed is None:
            params = msgspec.structs.replace(params, seed=secrets.randbits(63))
        params = msgspec.structs.replace(params, max_tokens=min(params.max_tokens, room))
        with self._lock:
            if self._num_requests >= self._settings.max_requests:
                raise OverloadedError(f"{self._num_requests} requests are waiting or running; ask again later")
            self._num_requests += 1
        try:
            return generation.submit(list(prompt_ids), params)
        except OverloadedError:
            self._answered()
            raise

    def close(self) -> None:
        with self._lock:
            self._closed = True
            left = list(self._generations)
        for generation in left:
            generation.close()
        self._unheld.put(None)
        self._reaper.join()
        with self._lock:
            self._generations.clear()

    def _template(self, base: BaseModel, adapter: AdapterSettings) -> AdapterTemplate:
        place = (base.sha256, adapter)
        with self._lock:
            template = self._templates.get(place)
        if template is None:
            template = AdapterTemplate(base, adapter)
            with self._lock:
                self._templates[place] = template
        return template

    def _warm(self, generation: LocalGeneration, base: BaseModel) -> None:
        """One prompt and two more steps touch every path and page in what the first request would wait for."""
        prompt = base.tokenizer("Hello.", add_special_tokens=False)["input_ids"]
        with self._lock:
            self._num_requests += 1
        answer = generation.submit(prompt, SamplingParams(max_tokens=3)).result()
        if answer.finish_reason == "error":
            generation.release()
            raise RuntimeError(f"{generation.key} does not get through its first answer: {answer.error}")

    def _answered(self) -> None:
        with self._lock:
            self._num_requests -= 1

    def _take_down(self) -> None:
        while (generation := self._unheld.get()) is not None:
            generation.close()
            with self._lock:
                if generation in self._generations:
                    self._generations.remove(generation)
            log.info("%s taken down", generation.key)
