"""How long a lone event takes to become an answer, and where the time goes.

    python benchmarks/bench_freshness.py [--events 10] [--home DIR] [--json FILE]

Starts the embedded stack with the default model, publishes one correction at a time to the idle system, and asks as
soon as a version that learned it serves. Prints p50 and p95, the means of the parts, and how many answers were right.

The parts come from the trainer's and the server's own metrics: queue (event time to trainer), linger (waiting for the
micro-batch to fill), step (optimizer steps), gate (judging), commit (files, manifest, pointer), swap (pointer moved to
version serving). What is left over is asking.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from lifelong.client import Client
from lifelong.config.shared import KafkaSettings
from lifelong.demo.facts import choose
from lifelong.local.stack import LocalStack
from lifelong.local.status import StackStatus
from lifelong.stream.admin import apply_topics

STAGES = ("queue", "linger", "step", "gate", "commit")
TIMEOUT_SECONDS = 300


def sums(status: StackStatus) -> dict[str, float]:
    """Seconds spent so far, by stage."""
    found = {}
    for process in ("trainer", "inference"):
        url = status.process(process).metrics
        assert url is not None
        for family in text_string_to_metric_families(httpx.get(url).text):
            for sample in family.samples:
                if sample.name == "lifelong_stage_seconds_sum":
                    found[sample.labels["stage"]] = sample.value
                elif sample.name == "lifelong_swap_seconds_sum" and not sample.labels["line"].endswith("-student"):
                    found["swap"] = sample.value
    return found


def create_topics(kafka: str) -> None:
    apply_topics(KafkaSettings(bootstrap_servers=kafka))


def measure(client: Client, status: StackStatus, num_events: int) -> list[dict[str, float]]:
    rows = []
    for number, fact in enumerate(choose(num_events, seed=7)):
        before = sums(status)
        published = time.time()
        client.feedback(fact.question, correction=fact.answer)
        # Asking again and again would take the cores from the trainer: ask once it can be known.
        while (client.health()["newest_event_time"] or 0) < published - 0.001:
            if time.time() - published > TIMEOUT_SECONDS:
                raise SystemExit(f"event {number}: not learned within {TIMEOUT_SECONDS} s")
            time.sleep(0.02)
        answer = client.ask(fact.question, memory=False, max_tokens=16)
        now = time.time()
        after = sums(status)
        row = {stage: after.get(stage, 0.0) - before.get(stage, 0.0) for stage in (*STAGES, "swap")}
        rows.append({"freshness": now - published, **row, "right": float(fact.is_told_by(answer.text))})
        print(f"{number + 1:3} {rows[-1]['freshness']:6.2f} s  {answer.text!r} (right: {fact.answer})", flush=True)
    return rows


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=10)
    arguments.add_argument("--home", type=Path)
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        stack = LocalStack(
            options.home or Path(temporary),
            create_topics=create_topics,
            # The student would take turns with the learner: here the way of an event is measured alone.
            settings={"LIFELONG_DISTILLER__MIN_SAMPLES": "1000000"},
        )
        with stack:
            status = stack.status()
            with Client(kafka=status.kafka, http=status.http) as client:
                rows = measure(client, status, options.events)
    fresh = [row["freshness"] for row in rows]
    summary = {
        "events": len(rows),
        "right": sum(row["right"] for row in rows),
        "p50_seconds": round(percentile(fresh, 0.5), 2),
        "p95_seconds": round(percentile(fresh, 0.95), 2),
        "mean_seconds": {
            part: round(statistics.fmean(row[part] for row in rows), 2) for part in ("freshness", *STAGES, "swap")
        },
    }
    print(json.dumps(summary, indent=2))
    if options.json:
        options.json.write_text(json.dumps({"summary": summary, "events": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
