"""Errors as OpenAI's clients expect them: ``{"error": {"message", "type", "param", "code"}}`` and a fitting status."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lifelong.contracts import metrics as names
from lifelong.errors import CorruptVersionError, OverloadedError, RegistryError, UnknownVersionError, UnreachableError
from lifelong.inference.feedback import UnknownOutputError
from lifelong.inference.handler import PromptError, PromptTooLongError
from lifelong.inference.wire import BadFieldError
from lifelong.runtime.metrics import Metrics

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
}
_CODES = {401: "invalid_api_key", 404: "unknown_url", 405: "method_not_allowed", 413: "request_too_large"}


def refuse(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status_code=status, headers=headers)


def refusal(error: Exception) -> JSONResponse | None:
    """The answer to an error of ours; ``None``: not one that a request can be blamed for or told of."""
    if isinstance(error, BadFieldError):
        return refuse(400, str(error), param=error.param, code=error.code)
    if isinstance(error, PromptTooLongError):
        return refuse(400, str(error), param="messages", code="context_length_exceeded")
    if isinstance(error, PromptError):
        return refuse(400, str(error), param="messages", code="invalid_value")
    if isinstance(error, UnknownOutputError):
        return refuse(404, str(error), param="output_id", code="output_not_found")
    if isinstance(error, UnknownVersionError):
        return refuse(404, str(error), param="model", code="model_not_found")
    if isinstance(error, OverloadedError):
        return refuse(429, str(error), code="rate_limit_exceeded", headers={"Retry-After": "1"})
    if isinstance(error, CorruptVersionError):
        return refuse(410, str(error), param="model", code="version_not_available")
    if isinstance(error, UnreachableError | RegistryError):
        return refuse(503, str(error), code="unavailable", headers={"Retry-After": "1"})
    return None


def install(app: FastAPI, metrics: Metrics) -> None:
    """Every error of every route in this shape, those of the framework included, and counted."""

    def counted(request: Request, answer: JSONResponse) -> JSONResponse:
        if request.url.path.startswith("/v1/"):
            route = getattr(request.scope.get("route"), "name", "unknown")
            result = "error" if answer.status_code >= 500 else f"refused-{answer.status_code}"
            metrics.count(names.REQUESTS, route=route, result=result)
        return answer

    async def ours(request: Request, error: Exception) -> JSONResponse:
        answer = refusal(error)
        assert answer is not None
        return counted(request, answer)

    for kind in (
        BadFieldError,
        PromptError,
        OverloadedError,
        UnreachableError,
        RegistryError,
    ):
        app.add_exception_handler(kind, ours)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first: dict[str, Any] = dict(error.errors()[0])
        place = [str(part) for part in first["loc"] if part != "body"]
        if first["type"] == "json_invalid":
            problem = first.get("ctx", {}).get("error", first["msg"])
            return counted(request, refuse(400, f"the body is not JSON: {problem}"))
        field = ".".join(place) or None
        return counted(
            request, refuse(400, f"{field or 'the body'}: {first['msg']}", param=field, code="invalid_value")
        )

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code == 404:
            message = f"no route {request.method} {request.url.path}"
        elif error.status_code == 405:
            message = f"{request.method} is not allowed on {request.url.path}"
        code = _CODES.get(error.status_code)
        return counted(request, refuse(error.status_code, message, code=code, headers=dict(error.headers or {})))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return counted(request, refuse(500, "internal error; the server's log says more", code="internal_error"))
