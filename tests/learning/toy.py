"""A learner of a few numbers, whose gradients can be worked out by hand.

A sample's answer, or its text, is a string of digits, its target tokens. What a token is predicted from, x_D, is a
function of the prompt and of the place in the answer. The logits are x W₀ᵀ, plus x Aᵀ Bᵀ for each of two LoRA pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.learning.base import Logits
from lifelong.learning.replay import randbelow

VOCABULARY, FEATURES, RANK = 10, 6, 2


def toy_sample(number: int, answer: str | None = None, *, task: str = "toy", **fields: object) -> Sample:
    messages = (Message("user", f"prompt {number}"), Message("assistant", answer or str(number * 37 + 11)))
    return Sample(id=f"0-{number}-0", event_id=f"e{number}", event_time=1e9, task=task, messages=messages, **fields)


class ToyLearner:
    def __init__(self, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.base_VD = normal(VOCABULARY, FEATURES)
        self.dtype = dtype
        named = {}
        for layer in range(2):
            named[f"layers.{layer}.q.lora_A.weight"] = torch.nn.Parameter(normal(RANK, FEATURES) / 2)
            named[f"layers.{layer}.q.lora_B.weight"] = torch.nn.Parameter(normal(VOCABULARY, RANK) / 2)
        self.parameters = named

    def logits(self, samples: Sequence[Sample], *, base: bool = False) -> Logits:
        x_ND = torch.stack([self.features(sample, at) for sample in samples for at in range(self.num_targets(sample))])
        logits_NV = x_ND @ self.base_VD.T
        if not base:
            for layer in range(2):
                a_RD, b_VR = (self.parameters[f"layers.{layer}.q.lora_{which}.weight"] for which in "AB")
                logits_NV = logits_NV + x_ND @ a_RD.T @ b_VR.T
        targets_N = torch.tensor([int(digit) for sample in samples for digit in _learnt(sample)])
        lengths_S = torch.tensor([self.num_targets(sample) for sample in samples])
        return Logits(logits_NV, targets_N, torch.repeat_interleave(torch.arange(len(samples)), lengths_S))

    def layer_inputs(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        x_ND = torch.stack([self.features(sample, at) for sample in samples for at in range(self.num_targets(sample))])
        return {name: x_ND for name in self.parameters if ".lora_A." in name}

    def features(self, sample: Sample, at: int) -> torch.Tensor:
        prompt = "|".join(message.content for message in sample.messages[:-1]) or sample.id
        return torch.tensor(
            [randbelow(2001, prompt, at, axis) / 1000 - 1 for axis in range(FEATURES)], dtype=self.dtype
        )

    def num_tokens(self, sample: Sample) -> int:
        return 2 + self.num_targets(sample)

    def num_targets(self, sample: Sample) -> int:
        return len(_learnt(sample))


def _learnt(sample: Sample) -> str:
    return sample.text or sample.messages[-1].content


def toy_anchor(number: int, **fields: object) -> Sample:
    """An answer, or, with ``messages=()`` and a ``text``, one of those."""
    return msgspec.structs.replace(toy_sample(number), id=f"anchor-{number}", **fields)


def copy_of(learner: ToyLearner) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in learner.parameters.items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """To the bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
