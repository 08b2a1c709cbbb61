"""One version of the weights, ready to answer: a view of the base with its own adapter, cache and batching thread."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch

from lifelong.errors import OverloadedError
from lifelong.model.adapter import add_adapter, load_adapter_state
from lifelong.model.answer import FinishReason, RunningAnswer
from lifelong.model.base import BaseModel, shared_tensors, view_of
from lifelong.model.batching import Batcher, Choice, GenerationOutput, RequestStatus
from lifelong.model.detokenise import Detokeniser
from lifelong.model.sampling import SamplingParams
from lifelong.model.settings import AdapterSettings, EngineSettings

log = logging.getLogger(__name__)


class AdapterTemplate:
    """Views with an adapter on them. Adapters are put on modules once and copied after that, which is quicker.

    Adapters stay apart from the base: merging them would round away in bfloat16 a part of what was learned, and cost
    a copy of the weights for every version.
    """

    def __init__(self, base: BaseModel, adapter: AdapterSettings) -> None:
        self._shared = shared_tensors(base)
        self._model = add_adapter(view_of(base), adapter, seed=0).requires_grad_(False).eval()

    def view(self, state: Mapping[str, torch.Tensor]) -> Any:
        """
        Raises:
            ValueError: the state does not fit.
        """
        # deepcopy notes what it copies in the memo, and every view must get a copy of its own.
        model = copy.deepcopy(self._model, dict(self._shared))
        load_adapter_state(model, state)
        return model.base_model.model


class _Running:
    def __init__(self, answer: RunningAnswer, choice: Choice) -> None:
        self.answer = answer
        self.choice = choice
        self.num_delivered = 0


class LocalGeneration:
    """See ``engine.Generation``. ``unheld`` is told of the last release, ``answered`` of the end of every answer."""

    def __init__(
        self,
        key: str,
        base: BaseModel,
        model: Any,
        settings: EngineSettings,
        *,
        unheld: Callable[[LocalGeneration], None],
        answered: Callable[[], None],
    ) -> None:
        self.key = key
        self.failure: str | None = None
        self._base = base
        self._unheld, self._answered = unheld, answered
        self._lock = threading.Lock()
        self._num_holds = 1
        self._num_submitted = 0
        self._running: dict[str, _Running] = {}
        self._end_tokens = base.end_tokens
        self._batcher = Batcher(model, settings, name=f"generation {key}", deliver=self._deliver, ended=self._ended)
        self._batcher.start()

    def hold(self) -> bool:
        with self._lock:
            if self._num_holds:
                self._num_holds += 1
            return self._num_holds > 0

    def release(self) -> None:
        with self._lock:
            assert self._num_holds, f"{self.key} was released more often than held"
            self._num_holds -= 1
            last = not self._num_holds
        if last:
            self._unheld(self)

    def submit(self, prompt_ids: list[int], params: SamplingParams) -> RunningAnswer:
        """
        Raises:
            OverloadedError: it is gone or has failed.
        """
        if not self.hold():
            raise OverloadedError(f"{self.key} has just been taken down; ask again")
        with self._lock:
            self._num_submitted += 1
            request_id = f"{self.key}/{self._num_submitted}"
            answer = RunningAnswer(
                self.key,
                len(prompt_ids),
                Detokeniser(self._base.tokenizer, params.stop),
                lambda _: self._finish(request_id, "cancelled"),
            )
            # Under the lock, so that the thread cannot end between the two and leave this one without an end.
            begun = self.failure is None and self._batcher.begin(request_id, prompt_ids, params, self._end_tokens)
            if begun:
                self._running[request_id] = _Running(answer, begun)
        if not begun:
            self.release()
            raise OverloadedError(f"{self.key} cannot answer ({self.failure or 'it is stopping'}); ask again")
        return answer

    def close(self) -> None:
        """Call off what is running and wait for the thread. Not to be called from the thread itself."""
        self._batcher.shut_down()

    def _deliver(self, output: GenerationOutput) -> None:
        with self._lock:
            running = self._running.get(output.request_id)
        if running is None:  # called off
            return
        tokens = tuple(output.generated_tokens[running.num_delivered :])
        logprobs = tuple(running.choice.logprobs[running.num_delivered :][: len(tokens)])
        running.num_delivered += len(tokens)
        stopped = running.answer.add(tokens, logprobs)
        if output.status == RequestStatus.FAILED:
            self._finish(output.request_id, "error", str(output.error))
        elif output.is_finished():
            ended = bool(output.generated_tokens) and output.generated_tokens[-1] in self._end_tokens
            self._finish(output.request_id, "stop" if ended else "length")
        elif stopped:
            self._finish(output.request_id, "stop")

    def _finish(self, request_id: str, reason: FinishReason, error: str | None = None) -> None:
        with self._lock:
            running = self._running.pop(request_id, None)
        if running is None:
            return
        self._batcher.cancel_request(request_id)  # does nothing to one that has ended
        self._batcher.forget(request_id)
        running.answer.finish(reason, error)
        self._answered()
        self.release()

    def _ended(self, error: Exception | None) -> None:
        with self._lock:
            self.failure = f"{type(error).__name__}: {error}" if error else "taken down"
            left = list(self._running)
        if error:
            log.error("%s cannot answer any more: %s", self.key, self.failure)
        for request_id in left:
            self._finish(request_id, "error" if error else "cancelled", self.failure)
