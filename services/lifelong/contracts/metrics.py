"""Every Prometheus metric: the one list from which code, dashboards, alerts and documentation take their names.

``lifelong_<noun>_<unit>[_total]`` with base units. Labels have few values, never ids.
"""

from __future__ import annotations

from typing import Literal

import msgspec

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
NATS = (0.01, 0.03, 0.1, 0.3, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 10)
COUNTS = (0, 1, 2, 4, 8, 16, 32, 64, 128)


class Metric(msgspec.Struct, frozen=True):
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    process: Literal["every", "collector", "trainer", "distiller", "inference"]
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = SECONDS


# every process
UP = Metric("lifelong_process_info", "gauge", "1, with the version of the software.", "every", ("process", "version"))
RECORDS = Metric("lifelong_records_total", "counter", "Records read from a topic.", "every", ("topic",))
LAG_RECORDS = Metric("lifelong_lag_records", "gauge", "Records that wait to be read.", "every", ("topic", "partition"))
LAG_SECONDS = Metric(
    "lifelong_lag_seconds",
    "gauge",
    "Now less the time of the last record read; 0 when nothing waits.",
    "every",
    ("topic", "partition"),
)
DEAD_LETTERS = Metric(
    "lifelong_dead_letters_total", "counter", "Records refused, by reason.", "every", ("topic", "reason")
)

# collector
EVENTS = Metric(
    "lifelong_events_total",
    "counter",
    "Events by type and by what became of them.",
    "collector",
    ("type", "outcome"),
)
COLLECT_SECONDS = Metric(
    "lifelong_collect_seconds", "histogram", "Time to turn one poll of events into samples.", "collector"
)
MASKED = Metric("lifelong_masked_total", "counter", "Secrets and personal data masked.", "collector", ("kind",))
TASK_ANSWERS = Metric(
    "lifelong_task_answers_total",
    "counter",
    "Answers whose label has come, by whether it is what was answered: correct, wrong.",
    "collector",
    ("task", "result"),
)
MEMORY_ENTRIES = Metric("lifelong_memory_entries", "gauge", "Entries in memory.", "inference", ())

# trainer
SAMPLES = Metric(
    "lifelong_samples_total", "counter", "Samples: trained, held-out, rejected.", "trainer", ("fate", "task")
)
SAMPLE_GAPS = Metric(
    "lifelong_sample_gaps_total", "counter", "Records dropped because an earlier one is missing.", "trainer"
)
SAMPLE_DUPLICATES = Metric(
    "lifelong_sample_duplicates_total",
    "counter",
    "Records dropped because they were taken in before.",
    "trainer",
)
WATERMARK = Metric("lifelong_watermark_offset", "gauge", "First source offset not taken in.", "trainer", ("partition",))
PENDING_SAMPLES = Metric("lifelong_pending_samples", "gauge", "Samples waiting for a micro-batch.", "trainer")
PREQUENTIAL_LOSS = Metric(
    "lifelong_prequential_loss_nats",
    "histogram",
    "Loss per token of a sample before it is trained on.",
    "trainer",
    ("task",),
    NATS,
)
TRAIN_LOSS = Metric("lifelong_train_loss_nats", "gauge", "Loss per token after the last step.", "trainer")
HELD_OUT_LOSS = Metric(
    "lifelong_held_out_loss_nats",
    "gauge",
    "Loss per token of what the version was judged by: recent, older, probe, general.",
    "trainer",
    ("slice",),
)
STEPS = Metric("lifelong_steps_total", "counter", "Optimizer steps.", "trainer")
STEPS_PER_BATCH = Metric(
    "lifelong_batch_steps", "histogram", "Optimizer steps that a micro-batch took.", "trainer", (), COUNTS
)
TOKENS = Metric("lifelong_trained_tokens_total", "counter", "Tokens trained on, replay included.", "trainer")
STAGE_SECONDS = Metric(
    "lifelong_stage_seconds",
    "histogram",
    "Where the time from event to version goes: queue, linger, step, gate, commit.",
    "trainer",
    ("stage",),
)
REPLAY_SAMPLES = Metric("lifelong_replay_samples", "gauge", "Samples in the replay buffer.", "trainer")
RELEARNING = Metric(
    "lifelong_relearning_batches", "gauge", "Micro-batches still to be relearned, to forget something.", "trainer"
)
BASE_KL = Metric(
    "lifelong_base_kl_nats",
    "gauge",
    "KL(base ‖ model) per token on some incoming samples, every learning.kl_every versions.",
    "trainer",
)
PREQUENTIAL_MEAN = Metric(
    "lifelong_prequential_fading_nats",
    "gauge",
    "Fading mean of the loss per token before a sample is trained on.",
    "trainer",
    ("task",),
)
PREQUENTIAL_ACCURACY = Metric(
    "lifelong_prequential_accuracy_ratio",
    "gauge",
    "Fading share of samples whose answer greedy decoding would have given before they were trained on.",
    "trainer",
    ("task",),
)
FORGETTING = Metric(
    "lifelong_forgetting_nats",
    "gauge",
    "Held-out loss of a task less the least it ever had; above 0: forgotten.",
    "trainer",
    ("task",),
)
BACKWARD_TRANSFER = Metric(
    "lifelong_backward_transfer_nats",
    "gauge",
    "Held-out loss of a task right after it was last learnt less that of now; below 0: forgotten since.",
    "trainer",
    ("task",),
)
FORWARD_TRANSFER = Metric(
    "lifelong_forward_transfer_nats",
    "gauge",
    "Loss of the base on a task's first samples less the loss before the step on each; above 0: others have helped.",
    "trainer",
    ("task",),
)
PLASTICITY_LOSS = Metric(
    "lifelong_plasticity_loss_nats",
    "gauge",
    "Held-out loss of a task right after it was last learnt; rising: the model learns worse.",
    "trainer",
    ("task",),
)
ANYTIME_LOSS = Metric(
    "lifelong_anytime_loss_nats",
    "gauge",
    "Mean over all versions of the mean held-out loss of the tasks learnt by then.",
    "trainer",
)
DRIFTS = Metric("lifelong_drifts_total", "counter", "Drifts seen in what comes in.", "trainer")
DRIFT_RAISED = Metric(
    "lifelong_drift_raised", "gauge", "1 while more of the old is replayed because of drift, else 0.", "trainer"
)

# trainer and distiller
VERSION = Metric("lifelong_version", "gauge", "Newest version: committed, live.", "every", ("line", "pointer"))
VERSIONS = Metric("lifelong_versions_total", "counter", "Versions by verdict.", "every", ("line", "verdict"))
EPOCH = Metric("lifelong_epoch", "gauge", "Fencing epoch of this writer.", "every", ("line",))

# distiller
DISTILL_LOSS = Metric(
    "lifelong_distill_loss_nats", "gauge", "Terms of αCE + (1-α)KL, per token.", "distiller", ("term",)
)
AGREEMENT = Metric(
    "lifelong_student_agreement_ratio",
    "gauge",
    "Held-out tokens on which student and teacher have the same first choice.",
    "distiller",
)
DISTILL_SECONDS = Metric("lifelong_distill_seconds", "histogram", "One round of distillation.", "distiller")

# inference
FRESHNESS = Metric(
    "lifelong_freshness_seconds",
    "histogram",
    "Event time to the first answer from a version that learned it.",
    "inference",
)
REQUESTS = Metric(
    "lifelong_requests_total", "counter", "Requests by route and result.", "inference", ("route", "result")
)
REQUEST_SECONDS = Metric("lifelong_request_seconds", "histogram", "Request to last token.", "inference", ("route",))
FIRST_TOKEN_SECONDS = Metric(
    "lifelong_first_token_seconds", "histogram", "Request to first token.", "inference", ("route",)
)
GENERATED = Metric("lifelong_generated_tokens_total", "counter", "Tokens generated.", "inference")
IN_FLIGHT = Metric("lifelong_requests_in_flight", "gauge", "Requests being answered.", "inference")
GENERATIONS = Metric("lifelong_generations", "gauge", "Versions held in memory, ready to answer.", "inference")
SWAP_SECONDS = Metric("lifelong_swap_seconds", "histogram", "Pointer moved to version serving.", "inference", ("line",))
MEMORY_HITS = Metric(
    "lifelong_memory_hits_total", "counter", "Answers by whether a memory was used.", "inference", ("hit",)
)
RETRIEVE_SECONDS = Metric("lifelong_retrieve_seconds", "histogram", "Memory look-up.", "inference")
FEEDBACK = Metric(
    "lifelong_feedback_total",
    "counter",
    'Feedback received over HTTP; all of it is in lifelong_events_total{type="lifelong.feedback"}.',
    "inference",
    ("kind",),
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
