"""What is asked of a model about samples that it has not learnt.

All answers come of forward passes on the true answer: what the model would have said is the likeliest token at each
place, which is what greedy generation says as long as it is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lifelong.contracts.samples import Sample
from lifelong.learning.base import Learner, Logits, chunks
from lifelong.learning.losses import evaluate, sample_losses


class Share(NamedTuple):
    """A mean, of which parts can be added up."""

    total: float
    weight: float

    def __add__(self, other: object) -> Share:
        assert isinstance(other, Share)
        return Share(self.total + other.total, self.weight + other.weight)

    @property
    def mean(self) -> float:
        return self.total / self.weight if self.weight else math.nan


Shares = dict[str, Share]
"""By what is measured."""
Exam = Callable[[Learner, Sequence[Sample]], Shares]


class LabelExam:
    """The label of a text, told by the first token of the answer.

    ``class_incremental``: the likeliest of the labels of all tasks, for nothing says which task a text belongs to.
    ``task_incremental``: the likeliest of the labels of its task. The difference is what is lost to labels that came
    often of late.
    """

    def __init__(self, learner: Learner, samples: Sequence[Sample], max_tokens: int) -> None:
        """``samples``: with every label of every task. Raises ValueError: two labels begin with the same token."""
        self._max_tokens = max_tokens
        self._label_of: dict[str, dict[str, int]] = {}
        for sample in samples:
            self._label_of.setdefault(sample.task, {}).setdefault(answer(sample), -1)
        examples = {(sample.task, answer(sample)): sample for sample in samples}
        with torch.no_grad():
            for (task, label), sample in sorted(examples.items()):
                self._label_of[task][label] = int(_first(learner.logits([sample])).targets_N[0])
        ids = sorted(token for labels in self._label_of.values() for token in labels.values())
        if len(set(ids)) < len(ids):
            raise ValueError(f"labels begin with the same token: {self._label_of}")
        self._labels_L = torch.tensor(ids)
        self._is_of_task = {
            task: torch.isin(self._labels_L, torch.tensor(list(labels.values())))
            for task, labels in self._label_of.items()
        }

    @torch.no_grad()
    def __call__(self, learner: Learner, samples: Sequence[Sample]) -> Shares:
        found = {"class_incremental": Share(0, 0), "task_incremental": Share(0, 0)}
        for chunk in chunks(learner, samples, self._max_tokens):
            first = _first(learner.logits(chunk))
            logits_SL = first.logits_NV.cpu()[:, self._labels_L]
            of_task_SL = torch.stack([self._is_of_task[sample.task] for sample in chunk])
            for name, masked_SL in (
                ("class_incremental", logits_SL),
                ("task_incremental", logits_SL.masked_fill(~of_task_SL, -math.inf)),
            ):
                said_S = self._labels_L[masked_SL.argmax(dim=1)]
                found[name] += Share(float((said_S == first.targets_N.cpu()).sum()), len(chunk))
        return found


def bits_per_byte(max_tokens: int) -> Exam:
    """Independent of how a text is divided into tokens, so that languages can be compared. The first token counts as a
    byte string without cost, in all models alike."""

    @torch.no_grad()
    def exam(learner: Learner, samples: Sequence[Sample]) -> Shares:
        bits = num_bytes = 0.0
        for chunk in chunks(learner, samples, max_tokens):
            loss_S = sample_losses(learner.logits(chunk), len(chunk))
            for sample, loss in zip(chunk, loss_S.tolist(), strict=True):
                assert sample.text is not None
                bits += loss * learner.num_targets(sample) / math.log(2)
                num_bytes += len(sample.text.encode())
        return {"bits_per_byte": Share(bits, num_bytes)}

    return exam


def exact(max_tokens: int) -> Exam:
    """Whether the whole answer is what greedy generation says."""

    @torch.no_grad()
    def exam(learner: Learner, samples: Sequence[Sample]) -> Shares:
        right = 0
        for chunk in chunks(learner, samples, max_tokens):
            right += sum(_is_exact(learner.logits(chunk), len(chunk)))
        return {"exact": Share(right, len(samples))}

    return exam


def nats(learner: Learner, samples: Sequence[Sample], max_tokens: int = 1024) -> float:
    """Per token, over all samples."""
    losses = evaluate(learner, samples, max_tokens)
    num_S = [learner.num_targets(sample) for sample in samples]
    return sum(losses[sample.id] * num for sample, num in zip(samples, num_S, strict=True)) / sum(num_S)


def _is_exact(predicted: Logits, num_samples: int) -> list[bool]:
    is_wrong_N = (predicted.logits_NV.argmax(dim=1) != predicted.targets_N).cpu()
    wrong_S = torch.zeros(num_samples).index_add(0, predicted.sample_N.cpu(), is_wrong_N.float())
    return [count == 0 for count in wrong_S.tolist()]


def answer(sample: Sample) -> str:
    return sample.messages[-1].content


def _first(predicted: Logits) -> Logits:
    """At the first target token of each sample."""
    _, counts = torch.unique_consecutive(predicted.sample_N, return_counts=True)
    first_S: Tensor = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])
    return Logits(predicted.logits_NV[first_S], predicted.targets_N[first_S], predicted.sample_N[first_S])
