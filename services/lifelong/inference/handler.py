"""From a request to an answer that can be traced: memory, prompt, version, output. Knows no HTTP and no Kafka."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from dataclasses import dataclass, field

import jinja2

from lifelong.contracts import metrics as names
from lifelong.contracts.requests import Output, Request
from lifelong.inference.config import Settings
from lifelong.inference.recall import Recall, used
from lifelong.inference.versions import Held, Versions
from lifelong.inference.wire import Ask
from lifelong.memory.base import Hit
from lifelong.model.answer import Answer, RunningAnswer
from lifelong.model.base import BaseModel
from lifelong.model.engine import Engine
from lifelong.model.sampling import SamplingParams
from lifelong.model.tokenise import encode_prompt
from lifelong.runtime.clock import Clock
from lifelong.runtime.metrics import Metrics


class PromptError(ValueError):
    """The model's chat format has no place for these messages."""


class PromptTooLongError(PromptError):
    """The prompt leaves no room for an answer."""


def output_id(request_id: str, version: str) -> str:
    """The same request answered by the same version has the same id, so that consumers can drop repeats."""
    return hashlib.sha256(f"{request_id}\n{version}".encode()).hexdigest()[:32]


@dataclass
class Begun:
    """An answer under way. ``running`` gives its pieces; when it is done ``Answerer.finish`` makes the output."""

    request: Request
    running: RunningAnswer
    held: Held
    hits: list[Hit]
    route: str
    started: float
    """Of the monotonic clock."""
    first_token: float | None = field(default=None)

    @property
    def version(self) -> str:
        return self.running.version

    @property
    def output_id(self) -> str:
        return output_id(self.request.id, self.version)


class Answerer:
    """Any number of threads may use it."""

    def __init__(
        self,
        engine: Engine,
        base: BaseModel,
        versions: Versions,
        recall: Recall,
        metrics: Metrics,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._engine = engine
        self._base = base
        self._versions = versions
        self._recall = recall
        self._metrics = metrics
        self._clock = clock
        self._settings = settings
        self._lock = threading.Lock()
        self._in_flight = 0

    def begin(self, ask: Ask, route: str) -> Begun:
        """Look up memory, hold the version, submit. Blocks for as long as a look-up takes, or a load of a version that
        is named by its number and not in memory.

        Raises:
            UnknownVersionError, CorruptVersionError, OverloadedError, UnreachableError: as ``Versions.hold``.
            PromptError: it cannot be asked so. PromptTooLongError: with what there is room for.
        """
        started = self._clock.monotonic()
        request = ask.request
        hits: list[Hit] = []
        if request.memory and ask.prompt is None:
            hits = self._recall.search(request.messages, request.user)
            self._metrics.observe(names.RETRIEVE_SECONDS, self._clock.monotonic() - started)
        held = self._versions.hold(request.model)
        try:
            running = self._submit(ask, held, hits)
        finally:
            # The answer holds it by itself.
            held.generation.release()
        if request.memory:
            self._metrics.count(names.MEMORY_HITS, hit="yes" if hits else "no")
        self._count_in_flight(+1)
        return Begun(request, running, held, hits, route, started)

    def finish(self, begun: Begun, answer: Answer) -> Output:
        """Called once, when the answer is done, however it ended."""
        now = self._clock.monotonic()
        self._count_in_flight(-1)
        result = answer.finish_reason
        self._metrics.count(names.REQUESTS, route=begun.route, result=result)
        self._metrics.observe(names.REQUEST_SECONDS, now - begun.started, route=begun.route)
        if begun.first_token is not None:
            self._metrics.observe(names.FIRST_TOKEN_SECONDS, begun.first_token - begun.started, route=begun.route)
        self._metrics.count(names.GENERATED, len(answer.tokens))
        manifest = begun.held.manifest
        newest = manifest.newest_event_time if manifest else None
        if answer.tokens and result in ("stop", "length"):
            self._observe_freshness(begun.version, newest)
        return Output(
            id=begun.output_id,
            request_id=begun.request.id,
            version=begun.version,
            base=manifest.base if manifest else self._base.name,
            messages=begun.request.messages,
            answer=answer.text,
            finish_reason=result if result in ("stop", "length") else "error",
            created=self._clock.now(),
            prompt_tokens=answer.num_prompt_tokens,
            completion_tokens=len(answer.tokens),
            memories=used(begun.hits),
            user=begun.request.user,
            latency_seconds=round(now - begun.started, 6),
            newest_event_time=newest,
            error=answer.error or ("cancelled by the asker" if result == "cancelled" else None),
        )

    def note_piece(self, begun: Begun) -> None:
        """A piece of the answer has come."""
        if begun.first_token is None:
            begun.first_token = self._clock.monotonic()

    def _submit(self, ask: Ask, held: Held, hits: list[Hit]) -> RunningAnswer:
        request = ask.request
        params = SamplingParams(
            max_tokens=request.max_tokens or self._settings.inference.default_max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            stop=request.stop,
            seed=request.seed,
        )
        prompt_ids = self._prompt_with(ask, hits, params.max_tokens) or self._prompt(ask, [])
        if not prompt_ids:
            raise PromptError("the prompt has no tokens")
        if len(prompt_ids) >= self._engine.max_tokens:
            raise PromptTooLongError(
                f"the prompt has {len(prompt_ids)} tokens; prompt and answer together have room for "
                f"{self._engine.max_tokens}"
            )
        return self._engine.submit(held.generation, prompt_ids, params)

    def _prompt_with(self, ask: Ask, hits: list[Hit], max_tokens: int) -> list[int] | None:
        """``None``, and no hits any more: memory must never make a request fail that goes without it."""
        if not hits:
            return None
        with contextlib.suppress(PromptError):
            prompt_ids = self._prompt(ask, hits)
            # Many clients ask for far more than any answer takes.
            wanted = min(max_tokens, self._settings.inference.default_max_tokens)
            if len(prompt_ids) + wanted <= self._engine.max_tokens:
                return prompt_ids
        hits.clear()
        return None

    def _prompt(self, ask: Ask, hits: list[Hit]) -> list[int]:
        if ask.prompt is not None:
            ids: list[int] = self._base.tokenizer(ask.prompt)["input_ids"]
            return ids
        try:
            return encode_prompt(self._base.tokenizer, self._recall.put_before(ask.request.messages, hits))
        except jinja2.TemplateError as error:
            raise PromptError(f"the model's chat template refuses these messages: {error}") from error

    def _observe_freshness(self, version: str, newest_event_time: float | None) -> None:
        if newest_event_time is not None and self._versions.take_first_answer(version):
            self._metrics.observe(names.FRESHNESS, max(0.0, self._clock.now() - newest_event_time))

    def _count_in_flight(self, step: int) -> None:
        with self._lock:
            self._in_flight += step
            self._metrics.set(names.IN_FLIGHT, self._in_flight)
