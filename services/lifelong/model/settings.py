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
