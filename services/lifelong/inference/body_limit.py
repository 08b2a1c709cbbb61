"""No request may fill the memory of the server."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Bodies of more than ``max_bytes`` are refused as soon as that is known: by their announced length, or as they
    come. Raised where the body is read, so that the answer has the shape of all other errors."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        lengths = [value for name, value in scope["headers"] if name == b"content-length" and value.isdigit()]
        num_announced = int(lengths[0]) if lengths and len(lengths[0]) < 19 else 0
        num_read = 0

        async def limited() -> Message:
            nonlocal num_read
            if num_announced > self._max_bytes:
                raise self._too_large()
            message = await receive()
            num_read += len(message.get("body", b""))
            if num_read > self._max_bytes:
                raise self._too_large()
            return message

        await self._app(scope, limited, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is larger than {self._max_bytes} bytes")
