"""Writes the dashboards from the list of metrics, or checks that they are not stale.

python deploy/grafana/generate.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from panels import Json, Panel, Query, dashboard, increase, median_and_p95, quantile, rate, series

from lifelong.contracts import metrics as m

FOLDER = Path(__file__).parent / "dashboards"


def stat(title: str, about: str, expr: str, unit: str = "short") -> Panel:
    return Panel(title, about, (Query(expr),), unit, kind="stat", width=4, height=4)


OVERVIEW = dashboard(
    "overview",
    "overview",
    "Is it learning, is it serving, is anything wrong?",
    (
        stat("Freshness, p95", m.FRESHNESS.about, "lifelong:freshness_seconds:p95_10m", "s"),
        stat("Live version", m.VERSION.about, series(m.VERSION, function="max", job="trainer", pointer="live")),
        stat("Events learned", "Samples trained on, in the time shown.", increase(m.SAMPLES, fate="trained")),
        stat("Answers", "Requests answered, in the time shown.", increase(m.REQUESTS)),
        stat("Furthest behind", m.LAG_SECONDS.about, series(m.LAG_SECONDS, function="max"), "s"),
        stat("Processes up", "Of those that Prometheus knows.", "sum(up)"),
        Panel(
            "Freshness",
            "Event time to the first answer from a version that learned it.",
            (
                Query("lifelong:freshness_seconds:p50_10m", "median"),
                Query("lifelong:freshness_seconds:p95_10m", "p95"),
            ),
            "s",
        ),
        Panel(
            "In, learned, out",
            "Events read, samples trained on, requests answered; a second.",
            (
                Query(rate(m.EVENTS), "events"),
                Query(rate(m.SAMPLES, fate="trained"), "samples trained on"),
                Query(rate(m.REQUESTS), "requests"),
            ),
        ),
        Panel(
            "Versions",
            m.VERSIONS.about,
            (Query(increase(m.VERSIONS, ("line", "verdict")), "{{line}} {{verdict}}"),),
            stacked=True,
        ),
        Panel("Lag", m.LAG_SECONDS.about, (Query("topic:lag_seconds:max", "{{job}} {{topic}}"),), "s"),
        Panel(
            "Refused and failed",
            "Shares: dead letters among the records of a topic, failures among the requests to a route.",
            (
                Query("topic:dead_letters:ratio_10m", "{{topic}}"),
                Query("route:requests_failed:ratio_5m", "{{route}}"),
            ),
            "percentunit",
        ),
        Panel(
            "Up",
            "1: Prometheus reaches it.",
            (Query("up", "{{job}} {{instance}}"),),
        ),
        Panel(
            "Alerts",
            "Firing now.",
            (Query('ALERTS{alertstate="firing"}'),),
            kind="table",
            width=12,
        ),
        Panel("Software", m.UP.about, (Query(series(m.UP, ("process", "version"))),), kind="table", width=12),
    ),
)

LEARNING = dashboard(
    "learning",
    "learning",
    "What the trainer and the distiller do, and whether it helps.",
    (
        Panel(
            "Loss before learning",
            f"{m.PREQUENTIAL_LOSS.about} Falling: what comes is known better and better.",
            (Query(quantile(0.5, m.PREQUENTIAL_LOSS, ("task",)), "{{task}}"),),
        ),
        Panel(
            "Loss after learning, and held out",
            "Per token, in nats. Held-out loss that rises while the other falls: forgetting or memorising.",
            (
                Query(series(m.TRAIN_LOSS, function="max"), "trained"),
                Query(series(m.HELD_OUT_LOSS, ("slice",), "max"), "held out: {{slice}}"),
            ),
        ),
        Panel("Distance from the base", m.BASE_KL.about, (Query(series(m.BASE_KL, function="max"), "KL"),)),
        Panel(
            "Known before it was learnt: loss",
            m.PREQUENTIAL_MEAN.about,
            (Query(series(m.PREQUENTIAL_MEAN, ("task",), "max"), "{{task}}"),),
        ),
        Panel(
            "Known before it was learnt: answers",
            m.PREQUENTIAL_ACCURACY.about,
            (Query(series(m.PREQUENTIAL_ACCURACY, ("task",), "max"), "{{task}}"),),
            "percentunit",
        ),
        Panel(
            "Right when it was asked",
            "Share of the answers of the last hour whose label has come since: the model, its memory, as they served.",
            (Query("task:answers_correct:ratio_1h", "{{task}}"),),
            "percentunit",
        ),
        Panel("Forgotten", m.FORGETTING.about, (Query(series(m.FORGETTING, ("task",), "max"), "{{task}}"),)),
        Panel(
            "Transfer",
            "In nats. Backward: what was learnt since has helped a task (below 0: harmed). Forward: what was learnt "
            "before has.",
            (
                Query(series(m.BACKWARD_TRANSFER, ("task",), "max"), "{{task}} backward"),
                Query(series(m.FORWARD_TRANSFER, ("task",), "max"), "{{task}} forward"),
            ),
        ),
        Panel(
            "Plasticity",
            f"{m.PLASTICITY_LOSS.about} Anytime: {m.ANYTIME_LOSS.about.lower()}",
            (
                Query(series(m.PLASTICITY_LOSS, ("task",), "max"), "{{task}}"),
                Query(series(m.ANYTIME_LOSS, function="max"), "anytime"),
            ),
        ),
        Panel(
            "Drift",
            f"{m.DRIFTS.about} Raised: {m.DRIFT_RAISED.about}",
            (
                Query(series(m.DRIFT_RAISED, function="max"), "raised"),
                Query("lifelong:drifts:increase_1h", "drifts in an hour"),
            ),
        ),
        Panel(
            "Where the time goes",
            m.STAGE_SECONDS.about,
            (Query(quantile(0.95, m.STAGE_SECONDS, ("stage",)), "{{stage}} p95"),),
            "s",
        ),
        Panel(
            "Versions",
            "Newest committed and live, by line.",
            (Query(series(m.VERSION, ("line", "pointer", "job"), "max"), "{{job}} {{line}} {{pointer}}"),),
        ),
        Panel(
            "Rejected by the gate",
            "Share of the versions of the last hour.",
            (Query("line:versions_rejected:ratio_1h", "{{line}}"),),
            "percentunit",
        ),
        Panel(
            "Samples",
            m.SAMPLES.about,
            (Query(rate(m.SAMPLES, ("fate", "task")), "{{task}} {{fate}}"),),
            stacked=True,
        ),
        Panel(
            "Waiting, and kept for replay",
            "Samples.",
            (
                Query(series(m.PENDING_SAMPLES), "waiting for a micro-batch"),
                Query(series(m.REPLAY_SAMPLES), "in the replay buffer"),
            ),
        ),
        Panel(
            "Relearning without what was to be forgotten",
            m.RELEARNING.about,
            (Query(series(m.RELEARNING, function="max"), "to go"),),
        ),
        Panel("Steps of a micro-batch", m.STEPS_PER_BATCH.about, median_and_p95(m.STEPS_PER_BATCH)),
        Panel("Steps", m.STEPS.about, (Query(rate(m.STEPS), "steps a second"),)),
        Panel("Tokens", m.TOKENS.about, (Query(rate(m.TOKENS), "tokens a second"),)),
        Panel("Writer", m.EPOCH.about, (Query(series(m.EPOCH, ("job", "line"), "max"), "{{line}}"),)),
        Panel(
            "Distillation loss", m.DISTILL_LOSS.about, (Query(series(m.DISTILL_LOSS, ("term",), "max"), "{{term}}"),)
        ),
        Panel(
            "Student and teacher agree",
            m.AGREEMENT.about,
            (Query(series(m.AGREEMENT, function="max"), "agreement"),),
            "percentunit",
        ),
        Panel("A round of distillation", m.DISTILL_SECONDS.about, median_and_p95(m.DISTILL_SECONDS), "s"),
    ),
)

SERVING = dashboard(
    "serving",
    "serving",
    "Requests, their latency, and the versions that answer them.",
    (
        Panel(
            "Requests",
            m.REQUESTS.about,
            (Query(rate(m.REQUESTS, ("route", "result")), "{{route}} {{result}}"),),
            stacked=True,
        ),
        Panel(
            "Failed",
            "Share of the requests of a route.",
            (Query("route:requests_failed:ratio_5m", "{{route}}"),),
            "percentunit",
        ),
        Panel("In flight", m.IN_FLIGHT.about, (Query(series(m.IN_FLIGHT, ("instance",)), "{{instance}}"),)),
        Panel(
            "To the last token",
            m.REQUEST_SECONDS.about,
            (
                *median_and_p95(m.REQUEST_SECONDS, ("route",)),
                Query("route:request_seconds:p95_5m", "{{route}} p95, 5 minutes"),
            ),
            "s",
        ),
        Panel(
            "To the first token", m.FIRST_TOKEN_SECONDS.about, median_and_p95(m.FIRST_TOKEN_SECONDS, ("route",)), "s"
        ),
        Panel("Tokens", m.GENERATED.about, (Query(rate(m.GENERATED), "tokens a second"),)),
        Panel(
            "Version served",
            "The live version as each server has it.",
            (
                Query(
                    series(m.VERSION, ("line", "instance"), "max", job="inference", pointer="live"),
                    "{{line}} {{instance}}",
                ),
            ),
        ),
        Panel(
            "Swap",
            m.SWAP_SECONDS.about,
            (
                *median_and_p95(m.SWAP_SECONDS, ("line",)),
                Query("line:swap_seconds:p95_10m", "{{line}} p95, 10 minutes"),
            ),
            "s",
        ),
        Panel(
            "Versions in memory", m.GENERATIONS.about, (Query(series(m.GENERATIONS, ("instance",)), "{{instance}}"),)
        ),
        Panel("Feedback", m.FEEDBACK.about, (Query(rate(m.FEEDBACK, ("kind",)), "{{kind}}"),), stacked=True),
    ),
)

STREAM = dashboard(
    "stream",
    "stream",
    "What comes in, what becomes of it, and who is behind.",
    (
        Panel("Records", m.RECORDS.about, (Query(rate(m.RECORDS, ("job", "topic")), "{{job}} {{topic}}"),)),
        Panel("Lag in seconds", m.LAG_SECONDS.about, (Query("topic:lag_seconds:max", "{{job}} {{topic}}"),), "s"),
        Panel(
            "Lag in records",
            m.LAG_RECORDS.about,
            (Query(series(m.LAG_RECORDS, ("job", "topic")), "{{job}} {{topic}}"),),
        ),
        Panel(
            "Events by what became of them",
            m.EVENTS.about,
            (Query(rate(m.EVENTS, ("outcome",)), "{{outcome}}"),),
            stacked=True,
        ),
        Panel("Events by type", m.EVENTS.about, (Query(rate(m.EVENTS, ("type",)), "{{type}}"),), stacked=True),
        Panel(
            "Dead letters",
            m.DEAD_LETTERS.about,
            (Query(rate(m.DEAD_LETTERS, ("topic", "reason")), "{{topic}} {{reason}}"),),
            stacked=True,
        ),
        Panel(
            "Watermarks",
            m.WATERMARK.about,
            (Query(series(m.WATERMARK, ("partition",), "max"), "partition {{partition}}"),),
        ),
        Panel(
            "Dropped by the trainer",
            "Duplicates are harmless. Gaps are closed by the collector; if not, there is an alert.",
            (
                Query(rate(m.SAMPLE_DUPLICATES), "duplicates"),
                Query(rate(m.SAMPLE_GAPS), "behind a gap"),
            ),
        ),
        Panel("One poll of the collector", m.COLLECT_SECONDS.about, median_and_p95(m.COLLECT_SECONDS), "s"),
        Panel("Masked", m.MASKED.about, (Query(rate(m.MASKED, ("kind",)), "{{kind}}"),)),
    ),
)

MEMORY = dashboard(
    "memory",
    "memory",
    "What is remembered beside the weights, and whether it is used.",
    (
        Panel("Entries", m.MEMORY_ENTRIES.about, (Query(series(m.MEMORY_ENTRIES, ("instance",)), "{{instance}}"),)),
        Panel("Answers", m.MEMORY_HITS.about, (Query(rate(m.MEMORY_HITS, ("hit",)), "{{hit}}"),), stacked=True),
        Panel("Look-up", m.RETRIEVE_SECONDS.about, median_and_p95(m.RETRIEVE_SECONDS), "s"),
        Panel(
            "Remembered only",
            "Events of which no sample could be made yet: observations that wait for their label.",
            (Query(rate(m.EVENTS, ("type",), outcome="memory-only"), "{{type}}"),),
        ),
        Panel(
            "Forgotten",
            "Requests to forget.",
            (Query(rate(m.EVENTS, outcome="forget"), "forget"),),
        ),
    ),
)

DASHBOARDS: dict[str, Json] = {
    "overview": OVERVIEW,
    "learning": LEARNING,
    "serving": SERVING,
    "stream": STREAM,
    "memory": MEMORY,
}


def main(arguments: list[str]) -> None:
    files = {
        f"{name}.json": json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in DASHBOARDS.items()
    }
    if arguments == ["--check"]:
        found = {path.name: path.read_text() for path in FOLDER.glob("*")}
        names = sorted(name for name in {*files, *found} if files.get(name) != found.get(name))
        if names:
            sys.exit(f"stale: {', '.join('deploy/grafana/dashboards/' + name for name in names)}; run `make generate`")
    elif not arguments:
        FOLDER.mkdir(exist_ok=True)
        for name, text in files.items():
            (FOLDER / name).write_text(text)
    else:
        sys.exit("usage: python deploy/grafana/generate.py [--check]")


if __name__ == "__main__":
    main(sys.argv[1:])
