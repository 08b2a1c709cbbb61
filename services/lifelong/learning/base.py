"""What a learning method needs of a model, and what it may ask of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lifelong.contracts.samples import Sample


class Logits(NamedTuple):
    """Predictions at the target tokens only: those of sample 0, then those of sample 1, and so on."""

    logits_NV: Tensor
    """float32."""
    targets_N: Tensor
    """The tokens that should have been predicted."""
    sample_N: Tensor
    """Which of the samples asked for each target belongs to."""


class Learner(Protocol):
    """A language model of which a part can learn."""

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """Those that learn, by name, always in the same order."""
        ...

    def logits(self, samples: Sequence[Sample], *, base: bool = False) -> Logits:
        """One forward pass, with a graph where gradients are enabled. ``base``: as if nothing had been learnt."""
        ...

    def num_tokens(self, sample: Sample) -> int:
        """That the forward pass has to work through, prompt included."""
        ...

    def num_targets(self, sample: Sample) -> int:
        """That have a loss; a sample with none teaches nothing."""
        ...


def chunks(learner: Learner, samples: Sequence[Sample], max_tokens: int) -> Iterator[list[Sample]]:
    """The samples in order, in pieces of at most ``max_tokens`` tokens, or of one sample."""
    chunk: list[Sample] = []
    num_tokens = 0
    for sample in samples:
        if chunk and num_tokens + learner.num_tokens(sample) > max_tokens:
            yield chunk
            chunk, num_tokens = [], 0
        chunk.append(sample)
        num_tokens += learner.num_tokens(sample)
    if chunk:
        yield chunk
