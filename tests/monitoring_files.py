"""Every query that we ship: of the dashboards, the recording rules and the alerts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
DASHBOARDS = DEPLOY / "grafana" / "dashboards"
RULES = DEPLOY / "prometheus" / "rules"


class ShippedQuery(NamedTuple):
    place: str
    """Where a person finds it: ``learning / Tokens``, ``alert LifelongLagging``."""
    expr: str


def dashboard_queries() -> list[ShippedQuery]:
    return [
        ShippedQuery(f"{path.stem} / {panel['title']}", target["expr"])
        for path in sorted(DASHBOARDS.glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    ]


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> dict[str, str]:
    """Name of the recording rule → expression."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def all_queries() -> list[ShippedQuery]:
    return [
        *dashboard_queries(),
        *(ShippedQuery(f"recording rule {name}", expr) for name, expr in recorded().items()),
        *(ShippedQuery(f"alert {rule['alert']}", rule["expr"]) for rule in alerts()),
    ]
