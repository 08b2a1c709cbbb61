"""Which language model, where it runs, and what part of it learns."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

PACKAGED_MODEL = "smollm2-135m-instruct"


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1)] = PACKAGED_MODEL
    """The default is the model whose weights a Python package carries; any other value is a folder with a Hugging
    Face causal language model in it, or the name of one on the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub. Pin it: the versions that were learned fit one base only."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the frozen base; adapters are always float32. ``auto``: what trains faster here, measured at start."""
    device: str = "auto"
    """``auto``: cuda when there is one, else cpu. Or a device by torch's name, such as ``cuda:1``."""
    threads: Annotated[int, Meta(ge=0)] = 0
    """Of torch, in this process. 0 leaves what torch chose: only right when nothing else needs the cores."""


class AdapterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A LoRA adapter (arXiv 2106.09685) on every linear projection of the upper layers, never on the embeddings."""

    rank: Annotated[int, Meta(ge=1)] = 8
    alpha: Annotated[float, Meta(gt=0)] = 16
    """What the adapter adds is scaled by alpha / rank."""
    fraction: Annotated[float, Meta(gt=0, le=1)] = 0.8
    """Of the layers, counted from the top. Leaving the lowest alone protects what was known before ("Spurious
    forgetting", ICLR 2025)."""


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of the machine generation may use. The cache is per version that is ready to answer."""

    max_requests: Annotated[int, Meta(ge=1)] = 64
    """Waiting and running together; one more is refused."""
    max_batch_requests: Annotated[int, Meta(ge=1)] = 16
    """Running at the same time, per version; others wait their turn."""
    max_batch_tokens: Annotated[int, Meta(ge=16)] = 256
    """Of prompts and answers in one step. Bounds how long a step takes, and so the wait of others for their next
    token."""
    cache_tokens: Annotated[int, Meta(ge=64)] = 4096
    """Prompt and answer tokens that are kept per version: one request cannot be longer, all running ones share it."""
    page_tokens: Annotated[int, Meta(ge=8)] = 32
    """The cache is handed out in pages of this size."""
    share_prefixes: bool = True
    """Compute a beginning that several prompts have in common once. Safe, because a version never changes and its cache
    is its own."""
