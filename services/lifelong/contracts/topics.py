"""The Kafka topics: one place for their names, partitions, retention and size limits.

``vN`` in a name changes only when a reader of the old messages would misread the new ones. Dots separate parts and
hyphens stand inside them: Kafka folds ``.`` and ``_`` together in its metric names, so ``_`` is never used.
"""

from __future__ import annotations

from typing import Literal

import msgspec

DAY_MS = 24 * 3600 * 1000

# An event may be this large on the wire. Larger than any event the collector accepts, on purpose: what is too large
# to learn from should reach the dead-letter topic with its reason instead of failing in the producer of a customer.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class Topic(msgspec.Struct, frozen=True):
    """``partitions=None``: as many as the events topic has, so that the two are co-partitioned."""

    name: str
    about: str
    key: str
    cleanup: Literal["delete", "compact"] = "delete"
    partitions: int | None = None
    retention_ms: int = 30 * DAY_MS

    def config(self) -> dict[str, str]:
        """The broker-side settings, as Kafka spells them."""
        settings = {
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(MAX_MESSAGE_BYTES),
            # The broker packs anew what a producer packed otherwise: our client cannot read snappy or zstd.
            "compression.type": "lz4",
        }
        if self.cleanup == "delete":
            settings["retention.ms"] = str(self.retention_ms)
            # Time decides and not size: a burst must not push out what was not read yet.
            settings["retention.bytes"] = "-1"
        return settings


EVENTS = Topic(
    name="lifelong.events.v1",
    about="What happened in the applications, as CloudEvents.",
    key="the ordering unit: user, task or tenant",
    # Verification and forgetting train again from the events, so they reach back as far as this.
    retention_ms=365 * DAY_MS,
)
SAMPLES = Topic(
    name="lifelong.samples.v1",
    about="What the collector made of each event: training samples, or the reason why there are none.",
    key="none: partition p holds what came of partition p of the events",
    retention_ms=365 * DAY_MS,
)
VERSIONS = Topic(
    name="lifelong.versions.v1",
    about="Every version that was committed, promoted, rejected or rolled back.",
    key="line@number",
    cleanup="compact",
    partitions=1,
)
REQUESTS = Topic(
    name="lifelong.requests.v1",
    about="Questions to the model, for applications that would rather not speak HTTP.",
    key="the conversation or user",
    retention_ms=7 * DAY_MS,
)
OUTPUTS = Topic(
    name="lifelong.outputs.v1",
    about="Every answer that was given, over HTTP or the requests topic, with its version and memories.",
    key="request id",
)
EVENTS_DLQ = Topic(
    name="lifelong.events.v1.dlq",
    about="Events that were refused, as they came, with the reason and the origin in the headers.",
    key="as the event",
    partitions=1,
)
SAMPLES_DLQ = Topic(
    name="lifelong.samples.v1.dlq",
    about="Samples records that the trainer or the distiller could not decode.",
    key="none",
    partitions=1,
)
REQUESTS_DLQ = Topic(
    name="lifelong.requests.v1.dlq",
    about="Requests that could not be decoded or answered.",
    key="as the request",
    partitions=1,
)

TOPICS: tuple[Topic, ...] = (
    EVENTS,
    SAMPLES,
    VERSIONS,
    REQUESTS,
    OUTPUTS,
    EVENTS_DLQ,
    SAMPLES_DLQ,
    REQUESTS_DLQ,
)
DEFAULT_PARTITIONS = 4

# Headers of a dead letter (in the style of KIP-1034).
DLQ_HEADER_TOPIC = "lifelong.dlq.topic"
DLQ_HEADER_PARTITION = "lifelong.dlq.partition"
DLQ_HEADER_OFFSET = "lifelong.dlq.offset"
DLQ_HEADER_REASON = "lifelong.dlq.reason"
DLQ_HEADER_DETAIL = "lifelong.dlq.detail"
DLQ_HEADER_PROCESS = "lifelong.dlq.process"
# Only where the record would not fit: the number of bytes of its value. The beginning of it is here, without headers.
DLQ_HEADER_CUT = "lifelong.dlq.cut"


def dead_letter_topic(topic: Topic) -> Topic:
    """The topic that takes what could not be read from ``topic``."""
    by_name = {t.name: t for t in TOPICS}
    return by_name[topic.name + ".dlq"]
