"""Settings of the inference server."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from lifelong.config.shared import ArtifactSettings, KafkaSettings, LineSettings, LogSettings, Port, RedisSettings
from lifelong.model.settings import AdapterSettings, EngineSettings, ModelSettings

_Seconds = Annotated[float, Meta(gt=0)]


class InferenceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    port: Port = 8000
    """Of HTTP; /metrics, /health and /ready are here too."""
    api_keys: tuple[str, ...] = ()
    """Without one, everybody who reaches the port may ask."""
    max_body_bytes: Annotated[int, Meta(ge=1)] = 4 * 1024 * 1024
    """Of one HTTP request; a larger one is refused (413)."""
    default_max_tokens: Annotated[int, Meta(ge=1)] = 256
    """Of an answer whose request names no bound."""
    pointer_seconds: _Seconds = 0.25
    """Between two looks at which version is live."""
    hot_versions: Annotated[int, Meta(ge=1)] = 2
    """Live ones kept in memory, the present one included: going back to the last is a flip."""
    pinned_versions: Annotated[int, Meta(ge=1)] = 2
    """Versions asked for by number that are kept in memory."""
    output_days: Annotated[float, Meta(gt=0)] = 7.0
    """How long an answer can be named in feedback."""
    require_outputs: bool = True
    """Every answer goes to the outputs topic. While that is not possible answers wait in memory, and when
    ``outputs_waiting`` of them do, new requests are refused (503). ``false``: answers beyond that are dropped, and
    counted in /health and the log."""
    outputs_waiting: Annotated[int, Meta(ge=1)] = 1000
    topic_requests: Annotated[int, Meta(ge=1)] = 16
    """Requests from the topic that are answered at the same time."""
    stop_seconds: _Seconds = 20.0
    """How long answers under way may take to end when the server is told to stop."""


class MemorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is looked up for an answer."""

    embedder: str = "minilm"
    """``minilm``, ``hash`` (words only, any language, no weights), or a folder with a sentence encoder."""
    entries: Annotated[int, Meta(ge=0)] = 3
    """Put before the model at most; 0: never any."""
    min_score: Annotated[float, Meta(ge=0, le=1)] = 0.55
    """Less alike than this is not worth distracting the model."""
    max_gap: Annotated[float, Meta(ge=0, le=1)] = 0.1
    """So much less alike than the best is not put beside it: of two answers to similar questions a small model takes
    either."""
    refresh_seconds: _Seconds = 0.25
    """Between two looks at what is new."""
    max_chars: Annotated[int, Meta(ge=1)] = 600
    """Of one memory; a longer one is cut."""


class Settings(msgspec.Struct, frozen=True):
    line: LineSettings = LineSettings()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    log: LogSettings = LogSettings()
    model: ModelSettings = ModelSettings()
    adapter: AdapterSettings = AdapterSettings()
    engine: EngineSettings = EngineSettings()
    memory: MemorySettings = MemorySettings()
    inference: InferenceSettings = InferenceSettings()
