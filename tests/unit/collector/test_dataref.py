from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lifelong.collector.config import CollectorSettings
from lifelong.collector.dataref import Fetcher
from lifelong.errors import DecodeError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data.json").write_bytes(b'{"text": "far away"}')
    (tmp_path / "secret").write_bytes(b"not yours")
    return tmp_path


def fetcher(prefix: str) -> Fetcher:
    return Fetcher([prefix], max_bytes=100, timeout_seconds=5)


def reason(fetch: Fetcher, reference: str) -> str:
    with pytest.raises(DecodeError) as caught:
        fetch(reference)
    return caught.value.reason


def test_what_is_below_the_prefix_is_read(folder: Path) -> None:
    assert fetcher(f"file://{folder}/in/")(f"file://{folder}/in/data.json") == b'{"text": "far away"}'


@pytest.mark.parametrize(
    "path", ["in/../secret", "in/%2e%2e/secret", "in/%252e%252e/secret", "secret", "in/x::file:///y"]
)
def test_nothing_else_is(folder: Path, path: str) -> None:
    assert reason(fetcher(f"file://{folder}/in/"), f"file://{folder}/{path}") == "dataref-refused"


def test_too_much_and_nothing(folder: Path) -> None:
    (folder / "in" / "big").write_bytes(b"x" * 101)
    fetch = fetcher(f"file://{folder}/in/")
    assert reason(fetch, f"file://{folder}/in/big") == "too-large"
    assert reason(fetch, f"file://{folder}/in/none") == "dataref-failed"


class _Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/in/moved":
            self.send_response(302)
            self.send_header("Location", "/in/data")
            self.end_headers()
            return
        body = b"x" * 1000 if self.path == "/in/big" else b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/in/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_over_http(web: str) -> None:
    fetch = fetcher(web)
    assert fetch(web + "data") == b"{}"
    assert reason(fetch, web + "big") == "too-large"
    # A redirect may lead anywhere.
    assert reason(fetch, web + "moved") == "dataref-failed"


@pytest.mark.parametrize("prefix", ["https://trusted.example", "/srv/data/", "file:///srv/data"])
def test_prefixes_must_not_be_open_ended(prefix: str) -> None:
    with pytest.raises(ValueError, match="ends with a slash"):
        CollectorSettings(dataref_allowed_prefixes=(prefix,))
