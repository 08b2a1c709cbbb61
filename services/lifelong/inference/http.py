"""The OpenAI-compatible HTTP API.

Source: https://platform.openai.com/docs/api-reference (chat, completions, models).
"""

from __future__ import annotations

import asyncio
import hmac
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from lifelong.contracts.requests import Output
from lifelong.inference import refusals
from lifelong.inference.body_limit import BodyLimit
from lifelong.inference.feedback import FeedbackDesk
from lifelong.inference.handler import Answerer, Begun
from lifelong.inference.outputs import Outputs
from lifelong.inference.versions import Versions
from lifelong.inference.wire import Ask, ChatBody, CompletionBody, FeedbackBody
from lifelong.model.answer import Answer
from lifelong.runtime.health import Health
from lifelong.runtime.metrics import Metrics

_FEEDBACK_AT_ONCE = 8
_LOOK_SECONDS = 0.5


def make_http(
    answerer: Answerer,
    versions: Versions,
    outputs: Outputs,
    feedback: FeedbackDesk,
    health: Health,
    metrics: Metrics,
    *,
    api_keys: tuple[str, ...] = (),
    max_body_bytes: int | None = None,
) -> FastAPI:
    app = FastAPI(title="lifelong", docs_url="/docs", redoc_url=None)
    if max_body_bytes is not None:
        app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    refusals.install(app, metrics)
    # Apart from the threads that answer: feedback waits for Kafka, however long that takes.
    feedback_threads = CapacityLimiter(_FEEDBACK_AT_ONCE)

    def authorised(authorization: str | None = Header(default=None)) -> None:
        given = (authorization or "").removeprefix("Bearer ").encode()
        if api_keys and not any(hmac.compare_digest(given, key.encode()) for key in api_keys):
            raise HTTPException(
                401, "a valid API key is needed: Authorization: Bearer KEY", headers={"WWW-Authenticate": "Bearer"}
            )

    guarded = [Depends(authorised)]

    @app.post("/v1/chat/completions", dependencies=guarded, response_model=None)
    async def chat(body: ChatBody, request: Request) -> Response:
        identifier = f"chatcmpl-{uuid.uuid4().hex}"
        return await _respond(body.ask(identifier), body, request, _Chat(identifier), "chat")

    @app.post("/v1/completions", dependencies=guarded, response_model=None)
    async def completions(body: CompletionBody, request: Request) -> Response:
        identifier = f"cmpl-{uuid.uuid4().hex}"
        return await _respond(body.ask(identifier), body, request, _Completion(identifier), "completions")

    async def _respond(
        ask: Ask, body: ChatBody | CompletionBody, request: Request, shape: _Shape, route: str
    ) -> Response:
        outputs.check_room()
        begun = await run_in_threadpool(answerer.begin, ask, route)
        if body.stream:
            events = _stream(begun, shape, body.include_usage)
            return StreamingResponse(events, media_type="text/event-stream", headers=_headers(begun))
        output = await _whole(begun, request)
        if output.error is not None:
            return refusals.refuse(500, output.error, code="generation_failed")
        return JSONResponse(shape.whole(output, begun), headers=_headers(begun))

    async def _whole(begun: Begun, request: Request) -> Output:
        """Waits for the answer, and calls it off when the asker has gone."""

        async def watch() -> None:
            while not await request.is_disconnected():
                await asyncio.sleep(_LOOK_SECONDS)
            begun.running.cancel()

        watching = asyncio.create_task(watch())
        try:
            async for _ in begun.running:
                answerer.note_piece(begun)
        finally:
            watching.cancel()
        return _finished(begun)

    async def _stream(begun: Begun, shape: _Shape, include_usage: bool) -> AsyncIterator[bytes]:
        try:
            for chunk in shape.opening(begun):
                yield _event(chunk)
            async for piece in begun.running:
                answerer.note_piece(begun)
                if piece.text:
                    yield _event(shape.piece(begun, piece.text))
            output = _finished(begun)
            if output.error is not None:
                problem = {"message": output.error, "type": "server_error", "param": None, "code": "generation_failed"}
                yield _event({"error": problem})
            else:
                yield _event(shape.closing(begun, output))
                if include_usage:
                    yield _event(shape.usage(begun, output))
            yield b"data: [DONE]\n\n"
        finally:
            # The asker has gone in the middle: nobody wants the rest.
            if not begun.running.done:
                begun.running.cancel()
                _finished(begun)

    def _finished(begun: Begun) -> Output:
        answer: Answer = begun.running.result(timeout=0)  # done, or called off just now
        output = answerer.finish(begun, answer)
        outputs.put(output)
        return output

    @app.post("/v1/feedback", dependencies=guarded, response_model=None, status_code=202)
    async def give_feedback(body: FeedbackBody) -> Response:
        event_id = await to_thread.run_sync(feedback.give, body, limiter=feedback_threads)
        return JSONResponse({"event_id": event_id}, status_code=202)

    @app.get("/v1/models", dependencies=guarded, response_model=None)
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [_model(name) for name in versions.models()]})

    @app.get("/v1/models/{name}", dependencies=guarded, response_model=None)
    async def model(name: str) -> Response:
        if not await run_in_threadpool(versions.exists, name):
            return refusals.refuse(404, f"no model {name!r}", param="model", code="model_not_found")
        return JSONResponse(_model(name))

    @app.get("/health", response_model=None)
    async def show_health() -> Response:
        return _json(health.report(), 503 if health.failure else 200)

    @app.get("/ready", response_model=None)
    async def show_ready() -> Response:
        return _json(health.report(), 200 if health.ready and not health.failure else 503)

    @app.get("/metrics", response_model=None)
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


class _Shape:
    """What the two routes call the same things."""

    object = ""

    def __init__(self, identifier: str) -> None:
        self._id = identifier
        self._created = int(time.time())

    def _frame(self, begun: Begun, choices: list[dict[str, Any]], kind: str) -> dict[str, Any]:
        manifest = begun.held.manifest
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": begun.version,
            "system_fingerprint": f"fp_{(manifest.weights_sha256 if manifest else 'base')[:12]}",
            "choices": choices,
        }

    def whole(self, output: Output, begun: Begun) -> dict[str, Any]:
        choice = {**self._answer(output.answer), "index": 0, "logprobs": None, "finish_reason": output.finish_reason}
        frame = self._frame(begun, [choice], self.object)
        return {**frame, "usage": _usage(output), "lifelong": _ours(output)}

    def opening(self, begun: Begun) -> list[dict[str, Any]]:
        return []

    def piece(self, begun: Begun, text: str) -> dict[str, Any]:
        choice = {**self._delta(text), "index": 0, "logprobs": None, "finish_reason": None}
        return self._frame(begun, [choice], self._chunk)

    def closing(self, begun: Begun, output: Output) -> dict[str, Any]:
        choice = {**self._delta(None), "index": 0, "logprobs": None, "finish_reason": output.finish_reason}
        return {**self._frame(begun, [choice], self._chunk), "lifelong": _ours(output)}

    def usage(self, begun: Begun, output: Output) -> dict[str, Any]:
        return {**self._frame(begun, [], self._chunk), "usage": _usage(output)}

    _chunk = ""

    def _answer(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _delta(self, text: str | None) -> dict[str, Any]:
        return {"text": text or ""}


class _Completion(_Shape):
    object = _chunk = "text_completion"


class _Chat(_Shape):
    object = "chat.completion"
    _chunk = "chat.completion.chunk"

    def opening(self, begun: Begun) -> list[dict[str, Any]]:
        choice = {"delta": {"role": "assistant", "content": ""}, "index": 0, "logprobs": None, "finish_reason": None}
        return [self._frame(begun, [choice], self._chunk)]

    def _answer(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _delta(self, text: str | None) -> dict[str, Any]:
        return {"delta": {} if text is None else {"content": text}}


def _usage(output: Output) -> dict[str, int]:
    total = output.prompt_tokens + output.completion_tokens
    return {
        "prompt_tokens": output.prompt_tokens,
        "completion_tokens": output.completion_tokens,
        "total_tokens": total,
    }


def _ours(output: Output) -> dict[str, Any]:
    """What OpenAI's shape has no place for."""
    return {
        "output_id": output.id,
        "version": output.version,
        "memories": msgspec.to_builtins(output.memories),
        "newest_event_time": output.newest_event_time,
    }


def _headers(begun: Begun) -> dict[str, str]:
    return {"x-lifelong-version": begun.version, "x-lifelong-output-id": begun.output_id, "cache-control": "no-store"}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "lifelong"}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _json(report: dict[str, object], status: int) -> Response:
    return Response(msgspec.json.encode(report), status_code=status, media_type="application/json")
