"""Writes what the documentation has of the contracts, or checks that it is not stale.

    python -m lifelong.contracts.schemas write|check

``docs/asyncapi.yaml``, ``docs/schemas/*.json`` and ``docs/metrics.md``. They are for people and tools outside; the
code itself never reads them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from lifelong.contracts import asyncapi, json_schema, metrics_page

DOCS = Path(__file__).parents[3] / "docs"


def files() -> dict[str, str]:
    """Everything that is generated: path below ``docs`` → content."""
    schemas = {f"schemas/{name}": _json(schema) for name, schema in json_schema.standalone().items()}
    return {"asyncapi.yaml": _yaml(asyncapi.document()), "metrics.md": metrics_page.page(), **schemas}


def _json(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _yaml(document: object) -> str:
    # Through JSON, so that equal parts are not written as anchors.
    plain = json.loads(json.dumps(document))
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    return "# Generated from services/lifelong/contracts by `make generate`.\n" + text


def stale(docs: Path) -> list[str]:
    """The files below ``docs`` that are missing, different, or not generated any more."""
    wanted = files()
    different = [
        name for name, text in wanted.items() if not (docs / name).is_file() or (docs / name).read_text() != text
    ]
    left_over = [
        f"schemas/{path.name}" for path in (docs / "schemas").glob("*") if f"schemas/{path.name}" not in wanted
    ]
    return sorted(different + left_over)


def write(docs: Path) -> None:
    for name in stale(docs):
        text = files().get(name)
        if text is None:
            (docs / name).unlink()
        else:
            (docs / name).parent.mkdir(parents=True, exist_ok=True)
            (docs / name).write_text(text)


def main(arguments: list[str]) -> None:
    if arguments == ["write"]:
        write(DOCS)
    elif arguments == ["check"]:
        if names := stale(DOCS):
            sys.exit(f"stale: {', '.join('docs/' + name for name in names)}; run `make generate`")
    else:
        sys.exit("usage: python -m lifelong.contracts.schemas write|check")


if __name__ == "__main__":
    main(sys.argv[1:])
