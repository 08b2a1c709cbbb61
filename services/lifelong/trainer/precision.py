"""Which dtype of the frozen base trains faster on this machine: measured, because no rule holds.

On one CPU bfloat16 is twice as fast as float32, on another, without instructions for it, many times slower.
"""

from __future__ import annotations

import logging
import math
import time

import msgspec
import torch

from lifelong.contracts.samples import Sample
from lifelong.learning.losses import sample_losses
from lifelong.model.base import DTYPES, load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings, ModelSettings

log = logging.getLogger(__name__)

_NUM_TIMED = 3
_HOPELESS = 4.0
"""Times the quickest step so far: no warming up makes up for that, and a machine without instructions for a dtype takes
long enough to start."""
_TEXT = "The quick brown fox jumps over the lazy dog while it rains. " * 6


def with_dtype(model: ModelSettings, adapter: AdapterSettings) -> ModelSettings:
    """The settings with ``auto`` decided. Done once for a line: its manifests record what was chosen."""
    if model.dtype != "auto":
        return model
    seconds: dict[str, float] = {}
    # float32 first: it is slow nowhere.
    for name in sorted(DTYPES, reverse=True):
        limit = _HOPELESS * min(seconds.values(), default=math.inf)
        seconds[name] = _seconds_per_step(msgspec.structs.replace(model, dtype=name), adapter, limit)
    chosen = min(seconds, key=lambda name: seconds[name])
    log.info("dtype %s: a step takes %s", chosen, ", ".join(f"{s:.3f} s in {n}" for n, s in seconds.items()))
    return msgspec.structs.replace(model, dtype=chosen)


def _seconds_per_step(model: ModelSettings, adapter: AdapterSettings, limit: float) -> float:
    """The quickest of a few, after one to warm up: the others were disturbed. A first above the limit is the last."""
    learner = AdapterLearner(load_base(model), adapter, seed=0, max_tokens=64)
    sample = Sample(id="", event_id="", event_time=0.0, task="", text=_TEXT)
    seconds: list[float] = []
    while len(seconds) < 1 + _NUM_TIMED and min(seconds, default=0.0) < limit:
        started = time.perf_counter()
        torch.autograd.backward(sample_losses(learner.logits([sample]), 1).sum())
        if learner.base.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:] or seconds)
