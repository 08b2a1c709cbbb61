"""Which dtype of the frozen base trains faster on this machine: measured, because no rule holds.

On one CPU bfloat16 is twice as fast as float32, on another, without instructions for it, many times slower.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import msgspec
import torch

from lifelong.contracts.samples import Sample
from lifelong.learning.losses import sample_losses
from lifelong.model.base import DTYPES, load_base, resolve_device
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings, ModelSettings

log = logging.getLogger(__name__)

_NUM_TIMED = 3
_HOPELESS = 4.0
"""Times the quickest product of matrices: whole steps need not be tried then, of which one may take a minute on a busy
machine."""
_TEXT = "The quick brown fox jumps over the lazy dog while it rains. " * 6


def with_dtype(model: ModelSettings, adapter: AdapterSettings) -> ModelSettings:
    """The settings with ``auto`` decided. Done once for a line: its manifests record what was chosen."""
    if model.dtype != "auto":
        return model
    device = resolve_device(model)
    products = {name: _seconds_per_product(dtype, device) for name, dtype in sorted(DTYPES.items())}
    hopeful = [name for name, seconds in products.items() if seconds < _HOPELESS * min(products.values())]
    if len(hopeful) == 1:
        chosen = hopeful[0]
        log.info("dtype %s: a product of matrices takes %s", chosen, _told(products))
    else:
        steps = {name: _seconds_per_step(msgspec.structs.replace(model, dtype=name), adapter) for name in hopeful}
        chosen = min(steps, key=lambda name: steps[name])
        log.info("dtype %s: a step takes %s", chosen, _told(steps))
    return msgspec.structs.replace(model, dtype=chosen)


def _told(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{1000 * s:.1f} ms in {name}" for name, s in seconds.items())


def _seconds_per_product(dtype: torch.dtype, device: torch.device) -> float:
    """Of 64 tokens by a layer of a small model."""
    tokens, weights = (torch.ones(num, 1024, dtype=dtype, device=device) for num in (64, 1024))
    return _quickest(lambda: tokens @ weights.T, device)


def _seconds_per_step(model: ModelSettings, adapter: AdapterSettings) -> float:
    learner = AdapterLearner(load_base(model), adapter, seed=0, max_tokens=64)
    sample = Sample(id="", event_id="", event_time=0.0, task="", text=_TEXT)
    return _quickest(
        lambda: torch.autograd.backward(sample_losses(learner.logits([sample]), 1).sum()), learner.base.device
    )


def _quickest(do: Callable[[], object], device: torch.device) -> float:
    """Seconds of the quickest of a few, after one to warm up: the others were disturbed."""
    seconds = []
    for _ in range(1 + _NUM_TIMED):
        started = time.perf_counter()
        do()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
