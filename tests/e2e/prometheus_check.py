"""A real Prometheus on running processes: does every query that we ship find its data?

report = check_queries({"trainer": "127.0.0.1:9401", ...})
assert not report.unexplained, report
"""

from __future__ import annotations

import subprocess
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from tests.monitoring_files import RULES, ShippedQuery, all_queries, recorded
from tests.programs import program
from tests.promql import selectors

from lifelong.local.ports import free_port
from lifelong.local.prometheus_config import scrape_config

NO_DATA = Path(__file__).parent / "no_data.toml"
NUM_SCRAPES = 3
WAIT_SECONDS = 90
# What Grafana would put in. As long as anything we check has run, so that what happened once is inside.
_VARIABLES = {"$__rate_interval": "15m", "$__range": "15m"}


class Report(msgspec.Struct, frozen=True):
    """Every query by how it ended, each under the place where it is shipped."""

    answered: list[ShippedQuery]
    at_rest: list[ShippedQuery]
    """Found nothing, though all that it asks for is there: nothing is above the threshold, or all stands still."""
    explained: dict[str, str]
    """Place and expression → the reason from the file."""
    unexplained: list[ShippedQuery]
    firing: list[str]
    """Alerts. Each must hold for a minute at least before it fires, so in a shorter check none does."""


def check_queries(
    metrics_targets: Mapping[str, str],
    *,
    queries: Sequence[ShippedQuery] | None = None,
    no_data: Path = NO_DATA,
) -> Report:
    """Start Prometheus on loopback with storage of its own, let it scrape and evaluate, ask everything, stop it.

    Args:
        metrics_targets: process name → ``host:port`` or ``http://host:port/metrics``.
        queries: all that are shipped, if not given.
        no_data: the file of explanations.

    Raises:
        AssertionError: a target cannot be scraped, or Prometheus refuses a query.
    """
    reasons = {key: table["reason"] for key, table in tomllib.loads(no_data.read_text()).items()}
    report = Report([], [], {}, [], [])
    with _prometheus(metrics_targets) as ask:
        for query in all_queries() if queries is None else queries:
            expr = _filled_in(query.expr)
            if _has_data(ask, expr):
                report.answered.append(query)
            elif all(_has_data(ask, selector.text) for selector in selectors(_written_out(expr))):
                report.at_rest.append(query)
            elif reason := next((why for key, why in reasons.items() if key in _written_out(expr)), None):
                report.explained[f"{query.place}: {query.expr}"] = reason
            else:
                report.unexplained.append(query)
        report.firing.extend(sorted(sample["metric"]["alertname"] for sample in ask('ALERTS{alertstate="firing"}')))
    return report


def _filled_in(expr: str) -> str:
    for variable, value in _VARIABLES.items():
        expr = expr.replace(variable, value)
    return expr


def _written_out(expr: str) -> str:
    """With the expressions of the recording rules in place of their names."""
    for name, inner in recorded().items():
        expr = expr.replace(name, f"({inner})")
    return expr


Ask = Callable[[str], list[dict[str, Any]]]


def _has_data(ask: Ask, expr: str) -> bool:
    return bool(ask(expr))


@contextmanager
def _prometheus(targets: Mapping[str, str]) -> Iterator[Ask]:
    binary = program("prometheus", "apt install prometheus")
    with tempfile.TemporaryDirectory(prefix="lifelong-prometheus-") as folder, httpx.Client(timeout=10) as client:
        config = Path(folder) / "prometheus.yml"
        config.write_text(scrape_config(targets, rules=[RULES / "*.yml"], interval_seconds=1))
        address = f"127.0.0.1:{free_port()}"
        command = [
            binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={address}",
        ]
        log = Path(folder) / "log"

        def get(path: str, **parameters: str) -> Any:
            reply = client.get(f"http://{address}/api/v1/{path}", params=parameters)
            if reply.status_code == 503:
                # Up, and reading its storage still.
                raise httpx.ConnectError(reply.text)
            answer = reply.json()
            assert answer["status"] == "success", answer
            return answer["data"]

        def ask(expr: str) -> list[dict[str, Any]]:
            result: list[dict[str, Any]] = get("query", query=expr)["result"]
            return result

        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_for_scrapes(get, ask, len(targets), lambda: log.read_text(), process)
            yield ask
        finally:
            process.terminate()
            process.wait()


def _wait_for_scrapes(
    get: Callable[..., Any], ask: Ask, num_targets: int, log: Callable[[], str], process: subprocess.Popen[bytes]
) -> None:
    """Until every target was scraped often enough, and after that the rules were evaluated twice.

    Twice, because an alert reads what a recording rule wrote in the evaluation before.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    evaluated: set[str] = set()
    while time.monotonic() < deadline:
        assert process.poll() is None, f"Prometheus ended:\n{log()}"
        try:
            scraped = [int(sample["value"][1]) for sample in ask("sum_over_time(up[10m])")]
        except httpx.TransportError:
            scraped = []
        if len(scraped) == num_targets and min(scraped) >= NUM_SCRAPES:
            evaluated.add(str([group["lastEvaluation"] for group in get("rules")["groups"]]))
            if len(evaluated) > 2:
                return
        time.sleep(0.1)
    problems = {target["scrapeUrl"]: target["lastError"] for target in get("targets")["activeTargets"]}
    raise AssertionError(f"not scraped {NUM_SCRAPES} times within {WAIT_SECONDS} s: {problems}\n{log()}")
