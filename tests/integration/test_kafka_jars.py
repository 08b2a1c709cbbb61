"""Fetching the broker, from a Maven repository on this machine that is named as a mirror."""

from __future__ import annotations

import functools
import gc
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lifelong.errors import MissingPartError
from lifelong.local.kafka_jars import Jar, Lock, kafka_jars

CONTENT = {"one": b"a jar", "two": b"another jar"}


def lock() -> Lock:
    return Lock(
        requests=("org.example:one:1.0",),
        jar=tuple(
            Jar(group="org.example", artifact=name, version="1.0", sha256=hashlib.sha256(content).hexdigest())
            for name, content in CONTENT.items()
        ),
    )


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an artifact's files, as a user names a mirror: in jgo's own settings."""
    root = tmp_path / "maven"
    for name, content in CONTENT.items():
        folder = root / "org" / "example" / name / "1.0"
        folder.mkdir(parents=True)
        (folder / f"{name}-1.0.jar").write_bytes(content)
        (folder / f"{name}-1.0.jar.sha1").write_text(hashlib.sha1(content, usedforsecurity=False).hexdigest())
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    use_repository(tmp_path, monkeypatch, server.server_address[1])
    yield root
    server.shutdown()
    server.server_close()
    thread.join()


def use_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    settings = tmp_path / "home" / ".config" / "jgo.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"[repositories]\ncentral = http://127.0.0.1:{port}\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def change(root: Path, content: bytes) -> None:
    """As a mirror that was broken into would serve it: its own checksum agrees."""
    folder = root / "org" / "example" / "two" / "1.0"
    (folder / "two-1.0.jar").write_bytes(content)
    (folder / "two-1.0.jar.sha1").write_text(hashlib.sha1(content, usedforsecurity=False).hexdigest())


def test_fetched_once_and_kept(mirror: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    paths = kafka_jars(cache, lock())
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert [path.name for path in cache.iterdir()] == [lock().name]
    change(mirror, b"nobody looks there again")
    assert kafka_jars(cache, lock()) == paths


def test_a_jar_that_is_not_the_released_one_is_refused(mirror: Path, tmp_path: Path) -> None:
    change(mirror, b"something else")
    with pytest.raises(MissingPartError, match=r"org\.example:two:1\.0 .* has sha256 .*, the lock says .*mirror"):
        kafka_jars(tmp_path / "cache", lock())
    assert list((tmp_path / "cache").iterdir()) == []


# jgo leaves the connection of an answer without a file to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_jar_that_nobody_has(mirror: Path, tmp_path: Path) -> None:
    (mirror / "org" / "example" / "two" / "1.0" / "two-1.0.jar").unlink()
    with pytest.raises(MissingPartError, match=r"cannot fetch org\.example:two:1\.0"):
        kafka_jars(tmp_path / "cache", lock())
    gc.collect()


def test_without_a_network_the_first_start_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_repository(tmp_path, monkeypatch, port=1)
    with pytest.raises(MissingPartError, match=r"The first start needs a network.*copy .*--kafka HOST:PORT"):
        kafka_jars(tmp_path / "cache", lock())
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("mirror")
def test_a_jar_that_was_changed_later_is_not_run(tmp_path: Path) -> None:
    paths = kafka_jars(tmp_path / "cache", lock())
    paths[0].write_bytes(b"changed")
    with pytest.raises(MissingPartError, match=r"sha256 .*remove .*, it will be fetched again"):
        kafka_jars(tmp_path / "cache", lock())
    paths[0].unlink()
    with pytest.raises(MissingPartError, match="is gone: remove"):
        kafka_jars(tmp_path / "cache", lock())
