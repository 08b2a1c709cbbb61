"""Settings from a TOML file and the environment, checked before anything starts.

A process declares one struct whose fields are sections. ``LIFELONG_CONFIG`` names the TOML file;
``LIFELONG_<SECTION>__<FIELD>`` overrides a field of it. Everything unknown is an error.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lifelong.errors import ConfigError

SECTIONS = frozenset(
    {
        *("line", "kafka", "redis", "artifacts", "metrics", "log"),
        *("model", "adapter", "memory", "learning", "gate"),
        *("collector", "trainer", "distiller", "inference"),
    }
)
"""All sections of all processes: one file serves them all, so each must know the names of the others' sections."""

_PREFIX = "LIFELONG_"
# Variables that are not settings of a process.
_RESERVED = frozenset({"LIFELONG_CONFIG", "LIFELONG_HOME", "LIFELONG_CACHE"})

S = TypeVar("S", bound=msgspec.Struct)


def load(settings: type[S], *, path: Path | None = None, environ: Mapping[str, str] = os.environ) -> S:
    """The settings of one process.

    Raises:
        ConfigError: naming the field, for an unknown name, a wrong type or a value out of range.
    """
    if path is None and environ.get("LIFELONG_CONFIG"):
        path = Path(environ["LIFELONG_CONFIG"])
    document = _read(path) if path else {}
    for section in document:
        if section not in SECTIONS:
            raise ConfigError(section, f"unknown section in {path}; known: {', '.join(sorted(SECTIONS))}")
        if not isinstance(document[section], dict):
            raise ConfigError(section, "expected a table")
    for name, text in environ.items():
        if name.startswith(_PREFIX) and name not in _RESERVED:
            section, field = _split(name)
            document.setdefault(section, {})[field] = _value(text)
    wanted = {field.name for field in msgspec.structs.fields(settings)}
    ours = {section: fields for section, fields in document.items() if section in wanted}
    try:
        return msgspec.convert(ours, settings, strict=False)
    except msgspec.ValidationError as error:
        raise _config_error(error) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise ConfigError("LIFELONG_CONFIG", f"no file {path}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("LIFELONG_CONFIG", f"{path} is not TOML: {error}") from error


def _split(name: str) -> tuple[str, str]:
    section, separator, field = name[len(_PREFIX) :].lower().partition("__")
    if not separator or section not in SECTIONS:
        raise ConfigError(
            name,
            f"unknown variable; expected LIFELONG_<SECTION>__<FIELD> with one of {', '.join(sorted(SECTIONS))}",
        )
    return section, field


def _value(text: str) -> Any:
    """A list or table is written as JSON; everything else is taken as it stands and converted to the field's type."""
    if text[:1] in ("[", "{"):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return text


def _config_error(error: msgspec.ValidationError) -> ConfigError:
    text = str(error)
    problem, _, place = text.partition(" - at `$")
    field = re.sub(r"\[[^]]*\]", "", place.rstrip("`")).lstrip(".")
    unknown = re.search(r"unknown field `([^`]+)`", problem)
    if unknown:
        field = f"{field}.{unknown[1]}" if field else unknown[1]
        problem = "unknown setting"
    return ConfigError(field or "settings", problem)
