"""A Prometheus configuration for processes that run on this machine, wherever their ports happen to be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def scrape_config(targets: Mapping[str, str], *, rules: Sequence[Path] = (), interval_seconds: int = 5) -> str:
    """YAML for ``prometheus --config.file``.

    Args:
        targets: process name → ``host:port`` or the whole ``http://host:port/metrics``. The name becomes the label
            ``job``, by which the rules and dashboards tell the processes apart.
        rules: rule files; globs are allowed.
    """
    lines = [
        "global:",
        f"  scrape_interval: {interval_seconds}s",
        f"  evaluation_interval: {interval_seconds}s",
        "",
        f"rule_files: {json.dumps([str(path) for path in rules])}",
        "",
        "scrape_configs:",
    ]
    for process, target in targets.items():
        address = target.removeprefix("http://").removesuffix("/metrics")
        if "/" in address:
            raise ValueError(f"{target}: expected host:port or http://host:port/metrics")
        lines += [
            f"  - job_name: {json.dumps(process)}",
            "    static_configs:",
            f"      - targets: [{json.dumps(address)}]",
        ]
    return "\n".join(lines) + "\n"
