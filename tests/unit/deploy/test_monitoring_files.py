"""Dashboards and rules ask only for what the list of metrics has, and show all of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.monitoring_files import DASHBOARDS, DEPLOY, ShippedQuery, alerts, all_queries, dashboard_queries, recorded
from tests.promql import Selector, grouping_labels, selectors

from lifelong.contracts.metrics import BY_NAME, METRICS
from lifelong.local.prometheus_config import scrape_config

# What Prometheus makes by itself.
ITS_OWN = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity"}}
TARGET_LABELS = {"job", "instance", "le"}


def labels_of(name: str) -> set[str] | None:
    """``None``: nobody makes a series of this name."""
    if name in ITS_OWN:
        return ITS_OWN[name]
    if name in recorded():
        return grouping_labels(recorded()[name])
    for suffix in ("", "_bucket", "_sum", "_count"):
        metric = BY_NAME.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if metric is not None and (metric.kind == "histogram") == bool(suffix):
            return {*metric.labels, *TARGET_LABELS}
    return None


@pytest.mark.parametrize("query", all_queries(), ids=lambda query: query.place)
def test_queries_ask_for_what_there_is(query: ShippedQuery) -> None:
    asked = selectors(query.expr)
    assert asked
    known: set[str] = set()
    for selector in asked:
        labels = labels_of(selector.name)
        assert labels is not None, f"{selector.name} is no metric"
        assert labels >= set(selector.labels), f"{selector.name} has no label {set(selector.labels) - labels}"
        known |= labels
    assert known >= grouping_labels(query.expr)


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {selector.name for query in dashboard_queries() for selector in expanded(query.expr)}
    missing = [metric.name for metric in METRICS if not shown & {metric.name, metric.name + "_bucket"}]
    assert missing == []


def expanded(expr: str) -> Iterator[Selector]:
    for selector in selectors(expr):
        yield selector
        if selector.name in recorded():
            yield from expanded(recorded()[selector.name])


def test_legends_use_labels_that_the_query_keeps() -> None:
    for path in DASHBOARDS.glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                kept = grouping_labels(target["expr"])
                for selector in selectors(target["expr"]):
                    if not grouping_labels(target["expr"]):
                        kept |= labels_of(selector.name) or set()
                assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, panel["title"]


def test_panels_do_not_overlap() -> None:
    for path in DASHBOARDS.glob("*.json"):
        cells: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            at = panel["gridPos"]
            here = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24
            assert not cells & here, panel["title"]
            cells |= here


def generate(*arguments: str, script: Path = DEPLOY / "grafana" / "generate.py") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)


def test_the_dashboards_are_fresh() -> None:
    done = generate("--check")
    assert done.returncode == 0, done.stderr


def test_stale_dashboards_are_found(tmp_path: Path) -> None:
    for name in ("generate.py", "panels.py"):
        (tmp_path / name).write_text((DEPLOY / "grafana" / name).read_text())
    script = tmp_path / "generate.py"
    assert "overview.json" in generate("--check", script=script).stderr
    assert generate(script=script).returncode == 0
    assert generate("--check", script=script).returncode == 0
    (tmp_path / "dashboards" / "gone.json").write_text("{}")
    assert "gone.json" in generate("--check", script=script).stderr


def test_a_renamed_metric_breaks_the_build(tmp_path: Path) -> None:
    for name in ("generate.py", "panels.py"):
        text = (DEPLOY / "grafana" / name).read_text()
        (tmp_path / name).write_text(text.replace("m.TOKENS", "m.TOKEN"))
    assert generate(script=tmp_path / "generate.py").returncode != 0


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_alerts_say_what_is_wrong_and_what_to_do(alert: dict[str, dict[str, str]]) -> None:
    assert set(alert["annotations"]) == {"summary", "runbook"}
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["for"]
    assert str(alert["alert"]).startswith("Lifelong")


def test_every_alert_and_every_recording_rule_has_a_test() -> None:
    tests = (DEPLOY / "prometheus" / "tests" / "alerts.yml").read_text()
    # Quiet cases say `exp_samples: []`; here only those count in which it fires.
    fired = set(re.findall(r'ALERTS{alertname="(\w+)", alertstate="firing", severity', tests))
    for case in yaml.safe_load(tests)["tests"]:
        fired |= {test["alertname"] for test in case.get("alert_rule_test", []) if test.get("exp_alerts")}
    assert fired == {alert["alert"] for alert in alerts()}
    # Those that an alert asks for are tested through it.
    through_alerts = {selector.name for alert in alerts() for selector in selectors(alert["expr"])}
    untested = [name for name in recorded() if name not in tests and name not in through_alerts]
    assert untested == []


def test_the_scrape_configuration_names_the_four_processes() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert set(jobs) == {"collector", "trainer", "distiller", "inference"}
    assert all(target.split(":")[0] == job for job, (target,) in jobs.items())


def test_scrape_config_for_this_machine() -> None:
    text = scrape_config(
        {"trainer": "127.0.0.1:1234", "inference": "http://127.0.0.1:8000/metrics"},
        rules=[Path("/a b/rules/*.yml")],
        interval_seconds=1,
    )
    assert yaml.safe_load(text) == {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["/a b/rules/*.yml"],
        "scrape_configs": [
            {"job_name": "trainer", "static_configs": [{"targets": ["127.0.0.1:1234"]}]},
            {"job_name": "inference", "static_configs": [{"targets": ["127.0.0.1:8000"]}]},
        ],
    }
    with pytest.raises(ValueError, match="expected host:port"):
        scrape_config({"trainer": "http://127.0.0.1/other/path"})


@pytest.mark.parametrize(
    ("expr", "texts"),
    [
        ("a", ["a"]),
        ('sum by (x, le) (rate(a_bucket{b="c d", e=~"f|g"}[5m]))', ['a_bucket{b="c d",e=~"f|g"}']),
        ("histogram_quantile(0.95, sum(rate(a[$__rate_interval])) by (le)) > 1e3", ["a"]),
        ('(a == 0) and on (p) (b{t="x{y}z"} > 0)', ["a", 'b{t="x{y}z"}']),
        ("level:a:sum / ignoring (z) group_left (k) b unless c", ["level:a:sum", "b", "c"]),
    ],
)
def test_the_parser(expr: str, texts: list[str]) -> None:
    assert [selector.text for selector in selectors(expr)] == texts
