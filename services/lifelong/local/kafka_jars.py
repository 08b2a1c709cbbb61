"""The broker itself: jar files from Maven, pinned by ``kafka.lock.toml`` and fetched by jgo on the first start.

The lock names each jar by its coordinates and its sha256, and no server: jgo knows where Maven artifacts are, and a
mirror is named in its own settings file (``[repositories]`` in ``~/.config/jgo.conf``). Only what the lock names is
fetched and only what matches its hash is run, so nothing is resolved on a user's machine.

``python -m lifelong.local.kafka_jars`` resolves the requests below again and writes the lock; for maintainers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from lifelong.errors import MissingPartError
from lifelong.local.disk import naming_full_disk

KAFKA = "org.apache.kafka:kafka_2.13:4.4.0"
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"
"""Without a binding the broker logs nothing. Resolved apart: in one request its BOM would pull kafka-clients back to
an older release than the broker's own."""

LOCK = Path(__file__).with_name("kafka.lock.toml")
_PARALLEL_DOWNLOADS = 4


class Jar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    @property
    def coordinates(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    requests: tuple[str, ...]
    jar: tuple[Jar, ...]

    @property
    def name(self) -> str:
        """Of the folder that holds exactly these jars: another lock never meets this one's files."""
        digest = hashlib.sha256("".join(jar.sha256 for jar in self.jar).encode()).hexdigest()
        version = self.requests[0].rpartition(":")[2]
        return f"kafka-{version}-{digest[:12]}"


def read_lock(path: Path = LOCK) -> Lock:
    with path.open("rb") as file:
        return msgspec.convert(tomllib.load(file), Lock)


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """``LIFELONG_CACHE``, else ``~/.cache/lifelong``: what can be made again at any time."""
    return Path(environ.get("LIFELONG_CACHE") or Path.home() / ".cache" / "lifelong")


def kafka_jars(cache: Path | None = None, lock: Lock | None = None) -> list[Path]:
    """The class path of the broker; fetched if it is not in ``cache``, checked against the lock each time.

    Checking takes a tenth of a second for 45 MB, so it is never left out.

    Raises:
        MissingPartError: a jar cannot be fetched, or is not what the lock says.
    """
    lock = lock or read_lock()
    folder = (cache or cache_folder()) / lock.name
    if not folder.is_dir():
        _fetch(lock, folder)
    paths = [folder / jar.file_name for jar in lock.jar]
    for jar, path in zip(lock.jar, paths, strict=True):
        _check(jar, path, f"remove {folder}, it will be fetched again")
    return paths


def _fetch(lock: Lock, folder: Path) -> None:
    """Into a folder of its own, moved to its place when complete: an interrupted download leaves nothing behind that
    could be taken for a jar, and two that fetch at once do no harm."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=folder.name + ".part-") as part:
        target = Path(part) / "jars"
        target.mkdir()
        maven = _maven(Path(part) / "maven")

        def fetch(jar: Jar) -> None:
            path = target / jar.file_name
            try:
                with naming_full_disk(folder.parent):
                    shutil.move(
                        maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve(), path
                    )
            # Not OSError alone: jgo raises RuntimeError for an artifact that no repository has.
            except (OSError, RuntimeError) as error:
                raise MissingPartError(
                    f"cannot fetch {jar.coordinates}: {error}. The first start needs a network. Without one, copy "
                    f"{folder} from a machine that has started before, or use another Kafka with --kafka HOST:PORT"
                ) from error
            _check(jar, path, "what was fetched is not what was released: look at your Maven mirror or proxy")

        with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
            # Not pool.map alone: the first failure should not wait for what has not begun.
            futures = [pool.submit(fetch, jar) for jar in lock.jar]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        try:
            target.rename(folder)
        except OSError:
            # Somebody else was quicker; theirs is checked like ours.
            if not folder.is_dir():
                raise


def _maven(repo_cache: Path) -> Any:
    try:
        from jgo.config import GlobalSettings
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.maven import MavenContext
    except ImportError as error:
        raise MissingPartError("jgo, which fetches Kafka, is not installed: `pip install 'lifelong[local]'`") from error
    repositories = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    return MavenContext(repo_cache=repo_cache, remote_repos=repositories)


def _check(jar: Jar, path: Path, mend: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise MissingPartError(f"{path} is gone: {mend}") from error
    if found != jar.sha256:
        raise MissingPartError(f"{jar.coordinates} in {path} has sha256 {found}, the lock says {jar.sha256}: {mend}")


def resolve(requests: Sequence[str] = (KAFKA, LOGGING)) -> Lock:
    """What the requests need now, each resolved on its own; an artifact that an earlier one has is not taken again."""
    import jgo

    jars: dict[tuple[str, str], Jar] = {}
    for request in requests:
        for artifact in jgo.resolve(request):
            key = (artifact.groupId, artifact.artifactId)
            if key not in jars:
                with artifact.resolve().open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                jars[key] = Jar(group=key[0], artifact=key[1], version=artifact.version, sha256=digest)
    return Lock(requests=tuple(requests), jar=tuple(jars[key] for key in sorted(jars)))


def _write(lock: Lock, path: Path) -> None:
    lines = [
        "# Every jar that the embedded broker runs. Written by `python -m lifelong.local.kafka_jars`.",
        "requests = [" + ", ".join(f'"{request}"' for request in lock.requests) + "]",
    ]
    for jar in lock.jar:
        lines += ["", "[[jar]]"]
        lines += [f'{field} = "{value}"' for field, value in msgspec.structs.asdict(jar).items()]
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    _write(resolve(), LOCK)
