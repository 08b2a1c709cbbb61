"""Settings from a TOML file and the environment, checked before anything starts.

A process declares one struct whose fields are sections. ``LIFELONG_CONFIG`` names the TOML file;
``LIFELONG_<SECTION>__<FIELD>`` overrides a field of it. Everything unknown is an error. A variable that is empty
counts as not set, which is what Docker Compose makes of one that it was not given.
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
        *("model", "adapter", "engine", "memory", "learning", "recipe", "gate", "drift"),
        *("collector", "trainer", "distiller", "inference"),
    }
)
"""All sections of all processes: one file serves them all, so each must know the names of the others' sections."""

_PREFIX = "LIFELONG_"
# Variables that are not settings of a process.
_RESERVED = frozenset({"LIFELONG_CONFIG", "LIFELONG_HOME", "LIFELONG_CACHE", "LIFELONG_HTTP", "LIFELONG_API_KEY"})

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
    sections = {field.name: field.type for field in msgspec.structs.fields(settings)}
    assert SECTIONS.issuperset(sections), f"unknown sections in {settings}"
    for name, text in environ.items():
        if not name.startswith(_PREFIX) or name in _RESERVED:
            continue
        section, field = _split(name)
        if text:
            document.setdefault(section, {})[field] = _value(text, sections.get(section), field)
    ours = {section: fields for section, fields in document.items() if section in sections}
    try:
        return msgspec.convert(ours, settings, strict=False)
    except msgspec.ValidationError as error:
        raise _config_error(error) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError("LIFELONG_CONFIG", f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("LIFELONG_CONFIG", f"{path} is not TOML: {error}") from error


def _split(name: str) -> tuple[str, str]:
    section, separator, field = name[len(_PREFIX) :].lower().partition("__")
    if not separator or section not in SECTIONS:
        raise ConfigError(
            name,
            f"unknown variable; expected LIFELONG_<SECTION>__<FIELD> with one of {', '.join(sorted(SECTIONS))}",
        )
    return section, field


def _value(text: str, section: Any, field: str) -> Any:
    """A list or table is written as JSON; everything else is taken as it stands and converted to the field's type."""
    if text[0] not in "[{" or _takes_text(section, field):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _takes_text(section: Any, field: str) -> bool:
    """Whether the field is a string: a password may begin with a bracket."""
    if not (isinstance(section, type) and issubclass(section, msgspec.Struct)):
        return False
    for known in msgspec.structs.fields(section):
        if known.name == field:
            try:
                return isinstance(msgspec.convert("[", known.type), str)
            except msgspec.ValidationError:
                return False
    return False


def _config_error(error: msgspec.ValidationError) -> ConfigError:
    problem, _, place = str(error).partition(" - at ")
    path = re.search(r"`\$([^`]*)`", place)
    field = re.sub(r"\[[^]]*\]", "", path[1]).lstrip(".") if path else ""
    named = re.search(r"(unknown|missing required) field `([^`]+)`", problem)
    if named:
        field = f"{field}.{named[2]}" if field else named[2]
        problem = "unknown setting" if named[1] == "unknown" else "has no default and is not set"
    return ConfigError(field or "settings", problem)
