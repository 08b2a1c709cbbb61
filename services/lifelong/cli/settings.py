"""``lifelong settings``: every setting of every process with its default, as the file that LIFELONG_CONFIG names."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec
import typer
from msgspec import inspect as types

_WIDTH = 118
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_HEAD = """\
Every setting of lifelong with its default: the output of `lifelong settings`, and itself a file that LIFELONG_CONFIG
can name. One file serves all processes, each reads its sections of it; put into yours only what you change. The
environment goes before the file: LIFELONG_<SECTION>__<FIELD>, such as LIFELONG_TRAINER__BATCH_SIZE=16; lists are JSON
there. What is unknown or out of range stops the process at start and is named.
"""


def register(app: typer.Typer) -> None:
    app.command(name="settings")(settings)


def settings() -> None:
    """Print every setting with its default and what it means, as TOML."""
    typer.echo(reference(), nl=False)


def processes() -> dict[str, type[msgspec.Struct]]:
    """The settings of each."""
    # Those of the trainer bring torch with them.
    from lifelong.collector.config import Settings as CollectorSettings
    from lifelong.distiller.config import Settings as DistillerSettings
    from lifelong.inference.config import Settings as InferenceSettings
    from lifelong.trainer.config import Settings as TrainerSettings

    return {
        "collector": CollectorSettings,
        "trainer": TrainerSettings,
        "distiller": DistillerSettings,
        "inference": InferenceSettings,
    }


def reference() -> str:
    """TOML in which every section of every process is, those that most of them read first."""
    known = processes()
    sections: dict[str, type[msgspec.Struct]] = {}
    readers: dict[str, list[str]] = {}
    for process, struct in known.items():
        for field in msgspec.structs.fields(struct):
            sections[field.name] = field.type
            readers.setdefault(field.name, []).append(process)
    order = sorted(sections, key=lambda name: -len(readers[name]))
    parts = [_comment(_HEAD)]
    for name in order:
        who = "every process" if len(readers[name]) == len(known) else ", ".join(readers[name])
        parts.append("\n".join(_section(name, sections[name], f"Read by {who}.")))
    return "\n\n".join(parts) + "\n"


def _section(name: str, struct: type[msgspec.Struct], about: str) -> Iterator[str]:
    yield f"[{name}]"
    own = f"{inspect.cleandoc(struct.__doc__)}\n" if _has_docstring(struct) and struct.__doc__ else ""
    yield _comment(own + about)
    told = _docstrings(struct)
    tables = []
    for field, kind in zip(msgspec.structs.fields(struct), _kinds(struct), strict=True):
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        if isinstance(default, msgspec.Struct):
            tables.append((field.name, type(default), told.get(field.name, "")))
            continue
        said = " ".join(part for part in (told.get(field.name, ""), _range(kind)) if part)
        yield ""
        if said:
            yield _comment(said)
        yield f"# {field.name} =" if default is None else f"{field.name} = {_toml(default)}"
    for inner, type_, about_inner in tables:
        yield ""
        yield from _section(f"{name}.{inner}", type_, about_inner)


def _has_docstring(struct: type[msgspec.Struct]) -> bool:
    """One of its own, not that of what it inherits."""
    return ast.get_docstring(_class(struct)) is not None


def _class(struct: type[msgspec.Struct]) -> ast.ClassDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(struct))).body[0]
    assert isinstance(node, ast.ClassDef)
    return node


def _docstrings(struct: type[msgspec.Struct]) -> dict[str, str]:
    """What stands below each field."""
    body = _class(struct).body
    return {
        field.target.id: inspect.cleandoc(told.value.value)
        for field, told in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(told, ast.Expr)
        and isinstance(told.value, ast.Constant)
        and isinstance(told.value.value, str)
    }


def _kinds(struct: type[msgspec.Struct]) -> list[types.Type]:
    found = types.type_info(struct)
    assert isinstance(found, types.StructType)
    return [field.type for field in found.fields]


def _range(kind: types.Type) -> str:
    if isinstance(kind, types.UnionType):
        return " ".join(filter(None, map(_range, kind.types)))
    if isinstance(kind, types.LiteralType):
        return f"One of {', '.join(map(str, kind.values))}."
    if isinstance(kind, types.VarTupleType) and isinstance(kind.item_type, types.LiteralType):
        return f"Any of {', '.join(map(str, kind.item_type.values))}."
    if isinstance(kind, (types.IntType, types.FloatType)):
        bounds = [
            f"{sign}\u00a0{bound}" for name, sign in _BOUNDS.items() if (bound := getattr(kind, name)) is not None
        ]
        return f"({', '.join(bounds)})" if bounds else ""
    return ""


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


def _comment(text: str) -> str:
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.replace("``", "`").split("\n\n")]
    lines = [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, _WIDTH, break_on_hyphens=False)]
    return "\n".join(f"# {line}" for line in lines).replace("\u00a0", " ")
