"""Where things are in the artifact store, and what counts as a whole version.

::

    <root>/<line>/manifests/00000017.json             created exclusively and last: from here on the version exists
    <root>/<line>/folders/00000017-e3-9f2c61d0/...    written first, under a name that no other writer uses
"""

from __future__ import annotations

import hashlib
import re
import secrets

import msgspec

from lifelong.contracts.versions import FileEntry, Manifest, version_key
from lifelong.errors import CorruptVersionError, UnknownVersionError

_LINE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MANIFEST = re.compile(r"(\d{8,})\.json")
_FOLDER = re.compile(r"([a-z0-9][a-z0-9.-]{0,63})/folders/(\d{8,})-e\d+-[0-9a-f]+")


def is_line(name: str) -> bool:
    """Whether a line can have this name: names come from requests too, and become paths."""
    return _LINE.fullmatch(name) is not None


def manifests_path(line: str) -> str:
    """Raises UnknownVersionError: no line can have this name."""
    if not is_line(line):
        raise UnknownVersionError(f"no line {line!r}")
    return f"{line}/manifests"


def folders_path(line: str) -> str:
    """Raises UnknownVersionError: no line can have this name."""
    if not is_line(line):
        raise UnknownVersionError(f"no line {line!r}")
    return f"{line}/folders"


def manifest_name(number: int) -> str:
    return f"{number:08d}.json"


def manifest_number(name: str) -> int | None:
    """The version that a file in the manifests folder is of; ``None``: it is a foreign file."""
    match = _MANIFEST.fullmatch(name)
    return int(match[1]) if match else None


def new_folder(line: str, number: int, epoch: int) -> str:
    """A folder for the files of a version to be, unlike any other."""
    return f"{folders_path(line)}/{number:08d}-e{epoch}-{secrets.token_hex(4)}"


def folder_number(folder: str) -> int | None:
    """The number that the writer of this folder was after; ``None``: it is a foreign folder."""
    match = _FOLDER.fullmatch(folder)
    return int(match[2]) if match else None


def check_folder(folder: str) -> str:
    """Raises CorruptVersionError: this is no folder of ours, a manifest that says so is not to be trusted."""
    if folder_number(folder) is None:
        raise CorruptVersionError(f"{folder!r} is not a folder of versions")
    return folder


def check_file(name: str) -> str:
    """Raises CorruptVersionError: as ``check_folder``."""
    if _FILE.fullmatch(name) is None:
        raise CorruptVersionError(f"{name!r} is not the name of a file of a version")
    return name


def entry_of(data: bytes) -> FileEntry:
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def verified(data: bytes, entry: FileEntry, place: str) -> bytes:
    """Raises CorruptVersionError: not the bytes that ``entry`` says."""
    if len(data) != entry.num_bytes:
        raise CorruptVersionError(f"{place}: {len(data)} bytes, the manifest says {entry.num_bytes}")
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise CorruptVersionError(f"{place}: its sha256 is not what the manifest says")
    return data


def gone(place: str) -> CorruptVersionError:
    return CorruptVersionError(f"{place} is missing; the files of old versions go, see artifacts.keep_versions")


def decode_manifest(data: bytes, line: str, number: int, place: str) -> Manifest:
    """Raises CorruptVersionError: torn, foreign, or of another version."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise CorruptVersionError(f"{place} is no manifest: {error}; restore it, or move it away") from error
    if (manifest.line, manifest.number) != (line, number):
        named = version_key(manifest.line, manifest.number)
        raise CorruptVersionError(f"{place} is the manifest of {named}; restore it, or move it away")
    return manifest
