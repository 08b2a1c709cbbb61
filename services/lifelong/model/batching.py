"""The continuous batching of transformers, fitted to one generation: the only file that knows its insides.

Measured with transformers 5.23 on a CPU: greedy output equals ``generate`` token by token, in float32 alone and in a
batch, in bfloat16 alone; in a batch of bfloat16 rounding differs with its size, as with any batching. Changed here:

- Tokens are chosen per request by ``sampling.choose``. The manager's own sampling has one seed for all requests.
- Outputs go straight from the generating thread to the answer, without a queue, a poll or an event loop between.
- The thread is a daemon with a name, and whatever ends it is told, so that no asker waits for ever.
- No graphs and no asynchronous batching: both would run ahead of the per-request choice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.continuous_api import (
    BackgroundThreadStatus,
    ContinuousBatchingManager,
    OutputRouter,
)
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus
from transformers.generation.logits_process import LogitsProcessorList

from lifelong.model.sampling import SamplingParams, choose
from lifelong.model.settings import EngineSettings

Deliver = Callable[[GenerationOutput], None]
__all__ = ["Batcher", "GenerationOutput", "RequestStatus"]


class Choice:
    """What is remembered of a request to choose its tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self.logprobs: list[float] = []


class Batcher(ContinuousBatchingManager):
    """``deliver`` gets an output after every token, ``ended`` the fatal error or ``None``: in the batching thread."""

    def __init__(
        self,
        model: Any,
        settings: EngineSettings,
        *,
        name: str,
        deliver: Deliver,
        ended: Callable[[Exception | None], None],
    ) -> None:
        super().__init__(
            model=model,
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1),
            continuous_batching_config=ContinuousBatchingConfig(
                num_blocks=-(-settings.cache_tokens // settings.page_tokens),
                page_size=settings.page_tokens,
                max_batch_tokens=settings.max_batch_tokens,
                max_requests_per_batch=settings.max_batch_requests,
                allow_block_sharing=settings.share_prefixes,
                use_cuda_graph=False,
                use_async_batching=False,
                auto_switch_to_flash=False,
            ),
        )
        self._name, self._ended = name, ended
        self._choices: dict[str, Choice] = {}
        self.output_router = _Router(deliver)
        self.logit_processor = ContinuousBatchingLogitsProcessorList(LogitsProcessorList())
        self.logit_processor.logits_processor.append(_Chooser(self._choices))
        self.logit_processor.tensors_required = 1
        self.logit_processor.do_processing = True

    def begin(
        self, request_id: str, prompt_ids: list[int], params: SamplingParams, end_tokens: frozenset[int]
    ) -> Choice | None:
        """``None``: the thread has ended or is about to."""
        choice = self._choices[request_id] = Choice(params)
        if (
            self.add_request(
                prompt_ids,
                request_id=request_id,
                max_new_tokens=params.max_tokens,
                streaming=True,
                eos_token_id=sorted(end_tokens),
            )
            is None
        ):
            self.forget(request_id)
            return None
        return choice

    def forget(self, request_id: str) -> None:
        self._choices.pop(request_id, None)

    def start(self) -> None:
        self.background_thread_status.clear()
        self._generation_thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._generation_thread.start()

    def shut_down(self) -> None:
        """End the thread, wait for it, and let go of the cache. May be called again."""
        self.background_thread_status.request_stop(BackgroundThreadStatus.HARD_STOP, 0)
        self._wake_up_loop.set()
        if self._generation_thread is not None:
            self._generation_thread.join()
        self.batch_processor = None

    def _run(self) -> None:
        try:
            self._run_generation_loop()
        finally:
            self._ended(self.background_thread_status.fatal_error)


class _Router(OutputRouter):
    def __init__(self, deliver: Deliver) -> None:
        super().__init__()
        self._deliver = deliver

    def deliver(self, output: GenerationOutput) -> None:
        self._deliver(output)

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        for output in outputs:
            self._deliver(output)


class _Chooser(ContinuousBatchingLogitsProcessor):
    """Leaves of each row only the token that was chosen for its request, so that the manager's argmax takes it."""

    supported_kwargs: ClassVar[dict[str, type]] = {}
    ignored_kwargs: tuple[str, ...] = ()

    def __init__(self, choices: dict[str, Choice]) -> None:
        self._choices = choices
        self._rows: list[tuple[Choice | None, int]] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        # What a request has generated becomes part of its prompt when its pages are taken for others: count both.
        self._rows = [
            (
                self._choices.get(request.state.request_id),
                len(request.state.initial_tokens) + len(request.state.generated_tokens),
            )
            for request in requests_with_new_token
        ]
        return torch.zeros(len(self._rows), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        chosen = torch.zeros_like(scores)
        for row, (choice, position) in enumerate(self._rows):
            if choice is None:  # called off meanwhile
                continue
            token = choose(scores[row], choice.params, position)
            choice.logprobs.append(float(scores[row, token] - scores[row].logsumexp(-1)))
            chosen[row, token] = 1
        return chosen
