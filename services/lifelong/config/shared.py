"""The settings that several processes share."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Port = Annotated[int, Meta(ge=0, le=65535)]


class LineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model this is about. Processes with the same line work together."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")] = "lifelong"
    """The name that applications ask for. Versions are NAME@NUMBER, the student is NAME-student."""

    @property
    def student(self) -> str:
        return self.name + "-student"


class KafkaSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bootstrap_servers: str = "127.0.0.1:9092"
    """Comma-separated host:port."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None
    topic_prefix: str = ""
    """Put before every topic name, for several installations on one cluster."""
    replication_factor: Annotated[int, Meta(ge=1)] = 1
    """Of the topics that ``lifelong topics apply`` creates."""
    partitions: Annotated[int, Meta(ge=1)] = 4
    """Of the events topic, and so of the samples topic. Do not change it for a line that has learned."""
    enable_auto_commit: bool = False

    def __post_init__(self) -> None:
        if self.enable_auto_commit:
            raise ValueError("must stay false: an offset that is committed before the work is done loses events")
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError("sasl_username and sasl_password are needed with security_protocol SASL_*")


class RedisSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str = "redis://127.0.0.1:6379/0"
    """Redis ≥ 7 or Valkey; no modules needed."""


class ArtifactSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str = ".lifelong/artifacts"
    """A directory, or any fsspec URL (``s3://bucket/path`` with ``pip install s3fs``)."""
    keep_versions: Annotated[int, Meta(ge=2)] = 20
    """Newest versions whose weights are kept; the live one and those that anything points to are always kept."""


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    port: Port = 0
    """Where /metrics, /health and /ready of this process are. 0: any free port, written to the log."""


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"
