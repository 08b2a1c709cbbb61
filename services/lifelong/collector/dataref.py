"""Data that an event points to instead of carrying it, for what is too large for a message (the claim-check pattern).

The one decision of the collector that depends on something outside of the stream and Redis: what a reference pointed
to at the first reading may be gone or changed at the next. So objects should be immutable and outlive the stream.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Sequence
from typing import BinaryIO, cast
from urllib.parse import unquote, urlsplit

import fsspec
import httpx

from lifelong.errors import DecodeError

_ATTEMPTS = 3
_CHUNK_BYTES = 64 * 1024


class Fetcher:
    """Reads what is below one of the allowed prefixes, bounded in bytes and in time."""

    def __init__(self, allowed_prefixes: Sequence[str], *, max_bytes: int, timeout_seconds: float) -> None:
        self._allowed = tuple(allowed_prefixes)
        self._max_bytes = max_bytes
        self._timeout = timeout_seconds
        self._threads = concurrent.futures.ThreadPoolExecutor(max_workers=4, thread_name_prefix="dataref")

    def __call__(self, reference: str) -> bytes:
        """
        Raises:
            DecodeError: ``dataref-refused``, ``dataref-failed`` or ``too-large``.
        """
        if not self._is_allowed(reference):
            raise DecodeError("dataref-refused", f"{reference[:200]} is not below an allowed prefix")
        problem: Exception | None = None
        for _ in range(_ATTEMPTS):
            # Not every file system of fsspec knows time-outs, so the reading is left alone when it takes too long.
            reading = self._threads.submit(self._read, reference)
            try:
                data = reading.result(self._timeout)
            except DecodeError:
                raise
            except Exception as error:
                # Foreign storage libraries raise whatever they like.
                reading.cancel()
                problem = error
            else:
                return data
        raise DecodeError("dataref-failed", f"{reference[:200]}: {type(problem).__name__}: {problem}")

    def _is_allowed(self, reference: str) -> bool:
        if not reference.startswith(self._allowed):
            return False
        # "a/../../b" leaves the prefix, also percent-encoded; "::" chains file systems in fsspec.
        path = unquote(unquote(reference)).replace("\\", "/")
        return "::" not in path and ".." not in path.split("/") and not urlsplit(reference).username

    def _read(self, reference: str) -> bytes:
        if reference.startswith(("http://", "https://")):
            return self._read_http(reference)
        with fsspec.open(reference, "rb") as opened:
            data = cast(BinaryIO, opened).read(self._max_bytes + 1)
        return self._bounded(data)

    def _read_http(self, reference: str) -> bytes:
        # Redirects lead out of the prefix, so they are not followed.
        deadline = time.monotonic() + self._timeout
        data = b""
        with httpx.stream("GET", reference, timeout=self._timeout, follow_redirects=False) as response:
            if response.status_code != httpx.codes.OK:
                raise OSError(f"HTTP status {response.status_code}")
            for chunk in response.iter_bytes(_CHUNK_BYTES):
                data = self._bounded(data + chunk)
                if time.monotonic() > deadline:
                    raise TimeoutError("too slow")
        return data

    def _bounded(self, data: bytes) -> bytes:
        if len(data) > self._max_bytes:
            raise DecodeError("too-large", f"the data is larger than {self._max_bytes} bytes")
        return data
