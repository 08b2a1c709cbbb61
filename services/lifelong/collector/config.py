"""The settings of the collector."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lifelong.config.shared import KafkaSettings, LineSettings, LogSettings, MetricsSettings, RedisSettings
from lifelong.stream.dead_letters import DeadLetterLimit

MaskKind = Literal["secret", "card", "iban", "email", "phone", "ip"]

_Positive = Annotated[int, Meta(ge=1)]
_Seconds = Annotated[float, Meta(gt=0)]


class CollectorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_event_bytes: Annotated[int, Meta(ge=1024, le=8 * 1024 * 1024)] = 1024 * 1024
    """Of key, headers and value together. A larger event goes to the dead letters, reason ``too-large``."""
    max_sample_chars: Annotated[int, Meta(ge=100)] = 2000
    """A longer document is cut into samples of at most this many characters, between paragraphs where possible."""
    max_samples_per_event: _Positive = 64
    """A document that would need more is refused as ``too-long``: split it into several events."""
    max_chat_chars: Annotated[int, Meta(ge=100)] = 16_000
    """Of all turns together. A longer conversation is refused as ``too-long``: cut, it would lose its sense."""
    min_document_chars: _Positive = 8
    """Letters and digits. A shorter document is refused as ``too-short``."""
    repetition_factor: Annotated[float, Meta(ge=0)] = 1.0
    """Multiplies the limits on repeated lines and word sequences; 2 is twice as lenient, 0 switches them off."""
    mask: tuple[MaskKind, ...] = ("secret", "card")
    """What is replaced by [SECRET], [CARD] … before anything is learned or remembered.

    What is never meant to be learned is masked unless switched off; addresses of people (``email``, ``phone``, ``ip``,
    ``iban``) are masked only if asked for, because "my address is …" may be just what an application teaches."""
    dedupe_window_seconds: _Seconds = 7 * 24 * 3600.0
    """By the times of the records: the same event or document again within this time is a duplicate."""
    dedupe_slack_seconds: _Seconds = 24 * 3600.0
    """How much longer than the window Redis keeps what was seen, so that a replay decides as the first time."""
    near_threshold: Annotated[float, Meta(gt=0, le=1)] = 0.8
    """Estimated Jaccard similarity of the five-word sequences from which on a document is a near-duplicate."""
    near_min_words: Annotated[int, Meta(ge=5)] = 50
    """Shorter documents are compared exactly only: one other word makes them another text."""
    join_window_seconds: _Seconds = 7 * 24 * 3600.0
    """How long an observation waits for its label, or a label for its observation."""
    dataref_allowed_prefixes: tuple[str, ...] = ()
    """URLs below which ``dataref`` may point, such as ``s3://bucket/events/``; none: such events are refused."""
    dataref_timeout_seconds: _Seconds = 10.0
    """An event whose data cannot be had within this time, three times over, is refused as ``dataref-failed``."""
    on_gap: Literal["stop", "skip"] = "stop"
    """When retention has deleted events that were not read yet: ``stop`` ends the process with the exact gap, ``skip``
    goes on with the first that is left and accounts for those between as ``lost``. Set it for as long as it takes."""
    max_poll_records: _Positive = 500
    poll_seconds: _Seconds = 0.5
    """How long one poll waits for records; also how long stopping may take."""
    max_backoff_seconds: _Seconds = 10.0
    """Longest pause between two attempts while Kafka or Redis is away."""
    dead_letter_limit: DeadLetterLimit = DeadLetterLimit()
    """When to stop, because so many refusals mean that the mistake is ours."""

    def __post_init__(self) -> None:
        for prefix in self.dataref_allowed_prefixes:
            # "https://trusted.example" would also allow "https://trusted.example.evil.com".
            if "://" not in prefix or not prefix.endswith("/"):
                raise ValueError(f"dataref_allowed_prefixes: {prefix!r} must be a URL that ends with a slash")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    line: LineSettings = LineSettings()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    collector: CollectorSettings = CollectorSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
