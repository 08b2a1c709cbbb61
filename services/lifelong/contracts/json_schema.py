"""JSON Schemas of the messages, with the docstrings of the fields as descriptions."""

from __future__ import annotations

import ast
import inspect
import sys
from typing import Any

import msgspec

from lifelong.contracts.events import EVENT_TYPES
from lifelong.contracts.requests import Output, Request
from lifelong.contracts.samples import SampleRecord
from lifelong.contracts.versions import Manifest, VersionEvent

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MESSAGES: tuple[type[msgspec.Struct], ...] = (
    *EVENT_TYPES.values(),
    SampleRecord,
    VersionEvent,
    Manifest,
    Request,
    Output,
)


def components(ref_template: str) -> dict[str, Any]:
    """All messages and the structs inside them, by name, referring to each other by ``ref_template``."""
    _, by_name = msgspec.json.schema_components(MESSAGES, ref_template=ref_template)
    structs = _structs()
    for name, schema in by_name.items():
        if "description" in schema:
            schema["description"] = _markdown(schema["description"])
        for field, about in _field_docs(structs[name]).items():
            schema["properties"][field] = {"description": _markdown(about), **schema["properties"][field]}
    return by_name


def standalone() -> dict[str, dict[str, Any]]:
    """One complete schema per message: file name → schema."""
    by_name = components("#/$defs/{name}")
    documents = {}
    for message in MESSAGES:
        name = message.__name__
        inside = {other: by_name[other] for other in sorted(_reachable(by_name, name) - {name})}
        document = {"$schema": DIALECT, **by_name[name]}
        documents[f"{name}.json"] = {**document, "$defs": inside} if inside else document
    return documents


def _reachable(by_name: dict[str, Any], name: str) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += _references(by_name[current])
    return found


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for item in schema for name in _references(item)]
    if isinstance(schema, dict):
        own = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
        return own + [name for item in schema.values() for name in _references(item)]
    return []


def _structs() -> dict[str, type[msgspec.Struct]]:
    """Every struct that the modules of the messages define or import, by name."""
    modules = {sys.modules[message.__module__] for message in MESSAGES}
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, msgspec.Struct)
    }


def _field_docs(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The string below a field, which Python itself does not keep."""
    body = ast.parse(inspect.getsource(struct)).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            docs[statement.target.id] = following.value.value
    return docs


def _markdown(docstring: str) -> str:
    return inspect.cleandoc(docstring).replace("``", "`")
