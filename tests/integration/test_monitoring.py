"""The monitoring files, judged by Prometheus itself: promtool, and a real server on live metrics."""

from __future__ import annotations

import subprocess
from collections.abc import Container, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from tests.e2e.prometheus_check import check_queries
from tests.monitoring_files import DEPLOY, RULES, ShippedQuery
from tests.programs import program

from lifelong.config.shared import MetricsSettings
from lifelong.contracts.metrics import METRICS, UP
from lifelong.local.prometheus_config import scrape_config
from lifelong.runtime.health import Health, HealthServer
from lifelong.runtime.metrics import Metrics

PROCESSES = ("collector", "trainer", "distiller", "inference")
# Values of labels that queries name; for others any value does.
VALUES = {
    "fate": ("trained", "held-out", "rejected"),
    "outcome": ("sample", "memory-only", "forget"),
    "verdict": ("accepted", "rejected"),
    "pointer": ("committed", "live"),
    "result": ("ok", "error", "correct", "wrong"),
    "topic": ("lifelong.events.v1", "lifelong.samples.v1"),
}


def full(process: str, *, left_out: Container[str] = ()) -> Metrics:
    """Every metric of the process, with a series for each value of its labels that some query names."""
    metrics = Metrics(process)
    for metric in METRICS:
        if metric.process not in ("every", process) or metric.name in left_out:
            continue
        number = max((len(VALUES.get(label, ("any",))) for label in metric.labels), default=1)
        for index in range(number):
            labels = {
                label: VALUES.get(label, ("any",))[index % len(VALUES.get(label, ("any",)))] for label in metric.labels
            }
            if metric.kind == "counter":
                metrics.count(metric, **labels)
            elif metric.kind == "gauge":
                metrics.set(metric, 0, **labels)
            else:
                metrics.observe(metric, 1, **labels)
    return metrics


def promtool(*arguments: str, given: bytes | None = None) -> str:
    command = [program("promtool", "apt install prometheus"), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    return output


@pytest.mark.parametrize("process", PROCESSES)
def test_promtool_has_nothing_against_the_exposition(process: str) -> None:
    assert promtool("check", "metrics", given=generate_latest(full(process).registry)) == ""


def test_promtool_accepts_the_rules() -> None:
    assert "rules found" in promtool("check", "rules", *map(str, RULES.glob("*.yml")))


def test_promtool_accepts_the_configurations(tmp_path: Path) -> None:
    promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))
    ours = tmp_path / "prometheus.yml"
    ours.write_text(scrape_config({"trainer": "127.0.0.1:1"}, rules=[RULES / "*.yml"]))
    assert "2 rule files found" in promtool("check", "config", str(ours))


def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", str(DEPLOY / "prometheus" / "tests" / "alerts.yml"))


@pytest.fixture
def targets() -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        found = {}
        for process in PROCESSES:
            left_out = ("lifelong_prequential_loss_nats", "lifelong_dead_letters_total")
            server = HealthServer(MetricsSettings(), full(process, left_out=left_out), Health(process))
            stack.callback(server.close)
            found[process] = f"127.0.0.1:{server.port}"
        yield found


def test_a_real_prometheus_finds_the_data_of_every_query(targets: dict[str, str]) -> None:
    typo = ShippedQuery("typo", "rate(lifelong_answers_total[$__rate_interval])")
    report = check_queries(targets)
    # What no process shows is found, and found by name; the rest has data.
    assert [query.place for query in report.unexplained] == ["learning / Loss before learning"]
    assert "no record was refused" in report.explained.values()
    assert report.firing == []
    assert len(report.answered) > 60
    assert "alert LifelongLagging" in {query.place for query in report.at_rest}
    assert check_queries(targets, queries=[typo]).unexplained == [typo]


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_says_what_it_is_from_the_start(process: str) -> None:
    samples = next(family.samples for family in Metrics(process).registry.collect() if family.name == UP.name)
    assert [sample.labels["process"] for sample in samples] == [process]
    assert samples[0].labels["version"]
