"""How likely a whole answer is, now and under a reference that does not move.

Shapes: S samples. Log-probabilities are sums over the target tokens of a sample, in nats.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner, Logits
from lifelong.learning.recipe import State

Kind = Literal["base", "first"]


def sequence_logprobs(predicted: Logits, num_samples: int) -> Tensor:
    """logp_S = Σ ln p(target): the log-likelihood of each answer given what comes before it, with a graph."""
    logp_N = -F.cross_entropy(predicted.logits_NV, predicted.targets_N, reduction="none")
    return torch.zeros(num_samples, dtype=logp_N.dtype, device=logp_N.device).index_add(0, predicted.sample_N, logp_N)


class Reference:
    """Log-probabilities under ``base``, or under the model as it was when each answer was seen here ``first``, which
    for a new sample is before anything was learnt from it.

    A sample made of another one has the id of that, a slash, and what it is.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._known: dict[str, float] = {}

    @torch.no_grad()
    def logprobs(self, learner: Learner, samples: Sequence[Sample]) -> Tensor:
        """logp_S. Asks the learner for those that are not known yet."""
        unknown = [sample for sample in samples if sample.id not in self._known]
        if unknown:
            logp_S = sequence_logprobs(learner.logits(unknown, base=self._kind == "base"), len(unknown))
            self._known |= dict(zip((sample.id for sample in unknown), logp_S.tolist(), strict=True))
        device = next(iter(learner.parameters.values())).device
        return torch.tensor([self._known[sample.id] for sample in samples], device=device)

    def begin(self) -> None:
        """A micro-batch begins. The base is asked again: what it says depends, in the last bit, on what is asked
        together, and must not depend on how long this process has been running."""
        if self._kind == "base":
            self._known = {}

    def keep(self, sample_ids: Collection[str]) -> None:
        self._known = {key: logp for key, logp in self._known.items() if key.partition("/")[0] in sample_ids}

    def state(self) -> State:
        if self._kind == "base":
            return {}
        return {key: torch.tensor([logp], dtype=torch.float64) for key, logp in self._known.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError: not such a state."""
        if state and self._kind == "base":
            raise ValueError(f"the base needs no state, got {sorted(state)[:3]} …")
        if odd := [key for key, value in state.items() if value.shape != (1,) or value.dtype != torch.float64]:
            raise ValueError(f"{odd[0]}: a log-probability is one number of float64")
        self._known = {key: value.item() for key, value in state.items()}
