"""One of Avalanche's own strategies learns one stream, as ``run`` has the trainer learn it.

Avalanche (https://avalanche.continualai.org, JMLR 24) does the work: its loop, its buffer, its penalty. Of ours are the
model with its adapter, the loss of a sample, the samples, micro-batches of 8 new ones, the length to which gradients
are cut, and the examinations. What is not alike:

- It is told where a task ends. Each phase of the stream is one *experience*; when that is over, its buffer is filled
  from it, or the Fisher information is taken in one more pass over it, whose tokens are not counted. Our strategies see
  micro-batches and nothing else.
- Inside an experience it shuffles, as is its default, so a micro-batch has other samples of the same phase.
- A micro-batch of 8 is one step, where ours are of 4: beside it stands ``naive-8``.
- AdamW is torch's, whose second moment has a half-life in steps, not in tokens.
- Its EWC squares the mean gradient of each micro-batch, not the gradient of each sample, does not normalise, and has no
  ½: its λ is not to be compared with ours.
- Until the first experience is over, and at the first step of each later one, which begins where the last one ended,
  its EWC adds nothing. Where it should have added something and did not, ``run`` raises: a release of it never did.
"""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from benchmarks.learning.exams import Exam
from benchmarks.learning.run import (
    BATCH_SIZE,
    Examiner,
    Phase,
    Progress,
    Result,
    Stream,
    known_and_next,
    machine,
    settings_of,
)
from benchmarks.learning.strategies import Avalanche, Strategy
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lifelong.contracts.samples import Sample
from lifelong.errors import MissingPartError
from lifelong.learning.base import Learner, chunks
from lifelong.learning.losses import sample_losses, weights
from lifelong.learning.settings import LearningSettings
from lifelong.model.base import load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings, ModelSettings

FOLDER = Path(__file__).parents[2] / ".avalanche"
"""Where ``make avalanche`` puts what it needs besides our own packages."""


class AvalancheMissingError(MissingPartError):
    pass


def run(
    stream: Stream,
    name: str,
    strategy: Strategy,
    seed: int,
    model: ModelSettings,
    tell: Callable[[str], None] = lambda what: None,
) -> Result:
    """
    Raises:
        AvalancheMissingError: it is not installed, or in another release.
        ValueError: its penalty was 0 where it must not be.
    """
    assert strategy.avalanche
    require(strategy.avalanche.release)
    learning = strategy.with_seed(seed).learning
    base = load_base(model)
    learner = AdapterLearner(base, AdapterSettings(), seed=seed, max_tokens=learning.max_tokens)
    learner.reset()
    exam = stream.exam(learner)
    examiner = Examiner(stream, exam, learner, nullcontext, has_slow=False)
    watch = Watch(learner, exam, stream.phases, learning.max_grad_norm, tell)

    examinations = [examiner.examine("", list(stream.tests))]
    seen: set[str] = set()
    cpu = wall = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = SampleLosses(learner, watch.samples, learning.tokens_per_pass)
        agent = make_agent(strategy.avalanche, module, learning, [watch], str(base.device))
        for phase, experience in zip(stream.phases, experiences(stream.phases), strict=True):
            started_cpu, started = time.process_time() - watch.exam_cpu, time.perf_counter() - watch.exam_wall
            with warnings.catch_warnings():
                # It calls what its next release will not have, and sets a filter of its own to say so.
                agent.train(experience, eval_streams=[])
            cpu += time.process_time() - watch.exam_cpu - started_cpu
            wall += time.perf_counter() - watch.exam_wall - started
            seen.update(sample.task for sample in phase.samples)
            examinations.append(examiner.examine(phase.name, known_and_next(stream, seen)))
    should_penalise = any(len(phase.samples) > BATCH_SIZE for phase in stream.phases[1:])
    if strategy.avalanche.name == "EWC" and should_penalise and watch.penalty_nats == 0:
        raise ValueError(f"the EWC of Avalanche added nothing to any loss: {strategy.avalanche.arguments}")
    return Result(
        stream.name,
        name,
        seed,
        settings_of(stream, strategy, seed, model),
        machine(),
        tuple(examinations),
        tuple(watch.progress),
        None,
        watch.num_tokens,
        cpu,
        watch.step_seconds,
        wall,
    )


def require(release: str) -> None:
    """Afterwards ``avalanche`` can be imported. Raises AvalancheMissingError."""
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        # At the end: it adds to our packages, and hides none.
        sys.path.append(str(FOLDER))
    try:
        with warnings.catch_warnings():
            # All of it is imported with any part of it, and warns of solvers and the like that nobody asked for.
            warnings.simplefilter("ignore")
            importlib.import_module("avalanche.training.supervised")
        found = version("avalanche-lib")
    except ImportError as error:
        raise AvalancheMissingError(f"Avalanche cannot be imported ({error}): make avalanche") from error
    if found != release:
        raise AvalancheMissingError(f"this is Avalanche {found}, figures are of {release}: make avalanche")


class SampleLosses(nn.Module):
    """From places of samples to their losses, as ``lifelong.learning.losses`` has them.

    Its parameters are those that learn and no others: Avalanche keeps two copies of all that there are.
    """

    def __init__(self, learner: Learner, samples: Sequence[Sample], tokens_per_pass: int) -> None:
        super().__init__()
        self.adapter = nn.ParameterList(learner.parameters.values())
        self._learner = learner
        self._samples = samples
        self._tokens_per_pass = tokens_per_pass

    def forward(self, place_S: Tensor) -> Tensor:
        samples = [self._samples[place] for place in place_S.tolist()]
        parts = chunks(self._learner, samples, self._tokens_per_pass)
        return torch.cat([sample_losses(self._learner.logits(part), len(part)) for part in parts])


def weighted_mean(loss_S: Tensor, weight_S: Tensor) -> Tensor:
    """The loss of a micro-batch, as our strategies have it."""
    return (loss_S * weight_S).sum() / weight_S.sum()


def make_agent(
    avalanche: Avalanche, module: SampleLosses, learning: LearningSettings, plugins: Sequence[object], device: str
) -> Any:
    """The strategy object; the optimizer is torch's nearest to ours."""
    from avalanche.training import supervised

    assert learning.optimizer == "adamw"
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=learning.learning_rate,
        betas=(learning.beta1, learning.beta2),
        eps=learning.eps,
        weight_decay=learning.weight_decay,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No loggers specified")
        return getattr(supervised, avalanche.name)(
            model=module,
            optimizer=optimizer,
            criterion=weighted_mean,
            train_mb_size=BATCH_SIZE,
            train_epochs=1,
            device=device,
            plugins=list(plugins),
            evaluator=None,
            **avalanche.arguments,
        )


def experiences(phases: Sequence[Phase]) -> Any:
    """A stream of experiences. An element is the place of a sample in the whole stream, and its weight."""
    from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
    from avalanche.benchmarks.utils import AvalancheDataset

    datasets = []
    start = 0
    for phase in phases:
        place_S = torch.arange(start, start + len(phase.samples))
        datasets.append(AvalancheDataset([TensorDataset(place_S, weights(phase.samples, place_S.device))]))
        start += len(phase.samples)
    return benchmark_from_datasets(train=datasets).train_stream


class Watch:
    """A plugin that examines each micro-batch before it is learnt, cuts gradients, and counts."""

    def __init__(
        self,
        learner: Learner,
        exam: Exam,
        phases: Sequence[Phase],
        max_grad_norm: float,
        tell: Callable[[str], None],
    ) -> None:
        self.samples = [sample for phase in phases for sample in phase.samples]
        """By their places."""
        self.progress: list[Progress] = []
        self.num_tokens = 0
        self.exam_cpu = self.exam_wall = self.step_seconds = 0.0
        self.penalty_nats = 0.0
        """Sum of what was added to the losses."""
        self._learner = learner
        self._exam = exam
        self._max_grad_norm = max_grad_norm
        self._tell = tell
        self._first = self._end = 0
        self._loss = self._began = 0.0

    def before_training_exp(self, agent: Any, **_: object) -> None:
        self._first, self._end = self._end, self._end + len(agent.experience.dataset)

    def before_training_iteration(self, agent: Any, **_: object) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        places = agent.mb_x.tolist()
        new = [self.samples[place] for place in places if place >= self._first]
        found = {key: (share.total, share.weight) for key, share in self._exam(self._learner, new).items()}
        self.progress.append(Progress(len(new), tuple(sorted({sample.task for sample in new})), found, 1, True))
        self.num_tokens += sum(self._learner.num_tokens(self.samples[place]) for place in places)
        self._tell(f"{sum(step.num_samples for step in self.progress)}/{len(self.samples)}")
        self._began = time.perf_counter()
        self.exam_cpu, self.exam_wall = self.exam_cpu + time.process_time() - cpu, self.exam_wall + self._began - wall

    def before_backward(self, agent: Any, **_: object) -> None:
        # Plugins are asked in their order, this one before that of the strategy.
        self._loss = agent.loss.item()

    def after_backward(self, agent: Any, **_: object) -> None:
        self.penalty_nats += agent.loss.item() - self._loss

    def before_update(self, agent: Any, **_: object) -> None:
        if self._max_grad_norm:
            nn.utils.clip_grad_norm_(agent.model.parameters(), self._max_grad_norm)

    def after_training_iteration(self, agent: Any, **_: object) -> None:
        self.step_seconds += time.perf_counter() - self._began
