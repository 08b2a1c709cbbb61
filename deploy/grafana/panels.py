"""Queries from the list of metrics, and panels and dashboards as the JSON that Grafana reads.

A query that names a label its metric does not have, or asks a gauge for its rate, fails here instead of showing an
empty panel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lifelong.contracts.metrics import Metric

Json = dict[str, Any]

TARGET_LABELS = ("job", "instance")
"""What Prometheus adds: the process, and where it is."""
COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Query(NamedTuple):
    expr: str
    legend: str = ""


class Panel(NamedTuple):
    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    """``timeseries``, ``stat`` or ``table``."""
    width: int = 8
    height: int = 8
    stacked: bool = False


def series(metric: Metric, by: tuple[str, ...] = (), function: str = "sum", **where: str) -> str:
    """A gauge as it is, or several of them put together."""
    assert metric.kind == "gauge", metric.name
    return f"{function}{_by(metric, by)}({metric.name}{_where(metric, where)})"


def rate(metric: Metric, by: tuple[str, ...] = (), **where: str) -> str:
    """Events a second of a counter."""
    assert metric.kind == "counter", metric.name
    return f"sum{_by(metric, by)}(rate({metric.name}{_where(metric, where)}[$__rate_interval]))"


def increase(metric: Metric, by: tuple[str, ...] = (), **where: str) -> str:
    """How much a counter grew over what the dashboard shows."""
    assert metric.kind == "counter", metric.name
    return f"sum{_by(metric, by)}(increase({metric.name}{_where(metric, where)}[$__range]))"


def quantile(q: float, metric: Metric, by: tuple[str, ...] = ()) -> str:
    assert metric.kind == "histogram", metric.name
    inner = f"sum{_by(metric, (*by, 'le'))}(rate({metric.name}_bucket[$__rate_interval]))"
    return f"histogram_quantile({q}, {inner})"


def median_and_p95(metric: Metric, by: tuple[str, ...] = ()) -> tuple[Query, ...]:
    of = " ".join(f"{{{{{label}}}}}" for label in by)
    return (
        Query(quantile(0.5, metric, by), f"{of} median".strip()),
        Query(quantile(0.95, metric, by), f"{of} p95".strip()),
    )


def _by(metric: Metric, labels: tuple[str, ...]) -> str:
    _check(metric, labels)
    return f" by ({', '.join(labels)}) " if labels else ""


def _where(metric: Metric, matchers: dict[str, str]) -> str:
    _check(metric, tuple(matchers))
    inner = ", ".join(
        f'{label}=~"{value}"' if "|" in value else f'{label}="{value}"' for label, value in matchers.items()
    )
    return f"{{{inner}}}" if inner else ""


def _check(metric: Metric, labels: tuple[str, ...]) -> None:
    unknown = set(labels) - set(metric.labels) - set(TARGET_LABELS) - {"le"}
    assert not unknown, f"{metric.name} has no label {', '.join(sorted(unknown))}"


def dashboard(uid: str, title: str, about: str, panels: tuple[Panel, ...]) -> Json:
    return {
        "uid": f"lifelong-{uid}",
        "title": f"lifelong: {title}",
        "description": about,
        "tags": ["lifelong"],
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "schemaVersion": 39,
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "links": [
            {"type": "dashboards", "tags": ["lifelong"], "asDropdown": False, "keepTime": True, "title": "lifelong"}
        ],
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                }
            ]
        },
        "annotations": {"list": []},
        "panels": _laid_out(panels),
    }


def _laid_out(panels: tuple[Panel, ...]) -> list[Json]:
    """Left to right, then down; a row is as high as its highest panel."""
    placed, x, y, row_height = [], 0, 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > COLUMNS:
            x, y, row_height = 0, y + row_height, 0
        placed.append({**_panel(panel, number), "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height}})
        x, row_height = x + panel.width, max(row_height, panel.height)
    return placed


def _panel(panel: Panel, number: int) -> Json:
    mode: Json = {"range": True} if panel.kind != "table" else {"instant": True, "range": False, "format": "table"}
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            **mode,
        }
        for index, query in enumerate(panel.queries)
    ]
    custom: Json = {"fillOpacity": 10, "showPoints": "never", "spanNulls": True}
    if panel.stacked:
        custom |= {"stacking": {"mode": "normal"}, "fillOpacity": 30}
    options: dict[str, Json] = {
        "timeseries": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"},
        "table": {"showHeader": True},
    }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, **({"custom": custom} if panel.kind == "timeseries" else {})},
            "overrides": [],
        },
        "options": options[panel.kind],
    }
