"""The list of metrics as a page of the documentation."""

from __future__ import annotations

from lifelong.contracts.metrics import METRICS, Metric

_PROCESSES = ("every", "collector", "trainer", "distiller", "inference")


def page() -> str:
    """Markdown."""
    parts = [
        "# Metrics",
        "Generated from `services/lifelong/contracts/metrics.py` by `make generate`. Every process shows its own at "
        "`/metrics`. Units are in the names; labels have few values and are never ids. Histograms end in `_bucket`, "
        "`_sum` and `_count`.",
    ]
    for process in _PROCESSES:
        of_process = [metric for metric in METRICS if metric.process == process]
        title = "Every process" if process == "every" else process.capitalize()
        rows = ["| metric | kind | labels | what |", "|---|---|---|---|", *map(_row, of_process)]
        parts += [f"## {title}", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.about} |"
