"""One micro-batch, from parent to candidate, and back if the gate says so."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import jinja2
import msgspec
import torch

from lifelong.contracts.events import Forget, Message
from lifelong.contracts.samples import Sample, must_be_forgotten
from lifelong.contracts.versions import Verdict
from lifelong.learning import anchor
from lifelong.learning.der import DarkReplay
from lifelong.learning.gate import Evidence, judge
from lifelong.learning.kto import disliked_answer
from lifelong.learning.losses import evaluate
from lifelong.learning.meter import base_kl
from lifelong.learning.methods import METHODS, OPTIMIZERS, REPLAYS
from lifelong.learning.online import Lesson
from lifelong.learning.recipes import make_recipe, slow_weights
from lifelong.learning.replay import BalancedReservoir, randbelow
from lifelong.learning.surprise import SurpriseReservoir, SurpriseState
from lifelong.model.adapter import WEIGHTS_FILE as ADAPTER_FILE
from lifelong.model.adapter import (
    AdapterState,
    adapter_files,
    adapter_state,
    load_adapter_state,
    pack_state,
    unpack_state,
)
from lifelong.model.learner import AdapterLearner
from lifelong.runtime.clock import Clock
from lifelong.trainer import state as files_of
from lifelong.trainer.config import Curriculum
from lifelong.trainer.signals import SIGNALS_FILE, Signals, begin_block

log = logging.getLogger(__name__)

_SLOW = "ema/slow."
"""What the slow weights are called in the state of a recipe."""

# Single statements of somebody, not examples of a task: holding one out would mean not to listen.
_NEVER_HELD_OUT = frozenset({"feedback", "fact", "preference"})


class Report(NamedTuple):
    """What became of a micro-batch. ``lesson`` is ``None`` if there was nothing to learn in it."""

    new: list[Sample]
    held_out: list[Sample]
    replayed: list[Sample]
    num_superseded: int
    """Contradicted by a later sample of the same micro-batch."""
    num_skipped: int
    """With nothing in them that could be learnt."""
    lesson: Lesson | None
    verdict: Verdict
    base_kl: float | None
    step_seconds: float
    gate_seconds: float


class Schooling:
    """The learner and all that its next version depends on.

    ``begin`` or ``restore`` comes first; then each ``learn`` makes the next version out of the present one.
    """

    def __init__(self, learner: AdapterLearner, curriculum: Curriculum, probes: Sequence[Sample], clock: Clock) -> None:
        """The adapter of ``learner`` is as fresh as at the beginning when this returns."""
        self._learner = learner
        self.curriculum = curriculum
        self._probes = list(probes)
        self._clock = clock
        learning, gate = curriculum.learning, curriculum.gate
        # What a method takes for the beginning must be the beginning.
        learner.reset()
        self._recipe = make_recipe(
            curriculum.recipe,
            learner.parameters,
            seed=learning.seed,
            reference_tokens=learning.reference_tokens,
            tokens_per_pass=learning.tokens_per_pass,
        )
        self._slow = slow_weights(self._recipe)
        self._optimizer = OPTIMIZERS[learning.optimizer](learner.parameters, learning)
        self.replay = REPLAYS[learning.replay](learning.replay_capacity, learning.seed)
        self.held_out = BalancedReservoir(gate.held_out_capacity, learning.seed)
        self.signals = Signals(curriculum.drift)
        self.anchors: list[Sample] = []
        self._learnt: Counter[str] = Counter()
        self._held_out_losses: dict[str, float] = {}
        self._general_losses: dict[str, float] = {}
        self._general_base: dict[str, float] = {}

    def begin(self, prompts: Sequence[str], anchors: Sequence[Sample] | None = None) -> None:
        """A line that has no versions yet: the base's answers are taken down before anything changes.

        Args:
            anchors: as they were taken down when the line began; without, they are made now.
        """
        if anchors is None:
            anchors = anchor.make_anchors(self._learner.base_answers, prompts or anchor.PROMPTS)
        self.anchors = list(anchors)
        self._general_base = self._evaluate(anchor.judged(self.anchors))
        self._general_losses = dict(self._general_base)
        self._held_out_losses = self._evaluate(self._probes)
        for method in self._recipe.methods.values():
            if isinstance(method, DarkReplay):
                # The anchors are answers of the base: what else it might have said is known without another pass later.
                method.remember(self._learner, self.anchors, base=True)

    def restore(self, files: Mapping[str, bytes], learnt_with: Curriculum) -> None:
        """The state of a version. An optimizer or a recipe that is another than it was begins anew.

        Args:
            learnt_with: how the version was learnt.

        Raises:
            ValueError: the adapter or the optimizer have another shape. CorruptVersionError.
        """
        served = unpack_state(files[ADAPTER_FILE])
        fast = files.get(files_of.FAST_FILE)
        load_adapter_state(self._learner.model, served if fast is None else unpack_state(fast))
        if learnt_with.learning.optimizer == self.curriculum.learning.optimizer:
            self._optimizer.load(unpack_state(files[files_of.OPTIMIZER_FILE]))
        if learnt_with.recipe == self.curriculum.recipe and self._recipe.methods:
            slow = {f"{_SLOW}{name}": tensor for name, tensor in served.items()} if self._slow else {}
            self._recipe.load(unpack_state(files[files_of.RECIPE_FILE]) | slow)
        state = files_of.unpack_state(files)
        samples = {
            name: files_of.unpack_samples(files[name], name)
            for name in (files_of.REPLAY_FILE, files_of.HELD_OUT_FILE, files_of.ANCHORS_FILE)
        }
        self.replay.load(state.replay, samples[files_of.REPLAY_FILE])
        self.held_out.load(state.held_out, samples[files_of.HELD_OUT_FILE])
        self.anchors = samples[files_of.ANCHORS_FILE]
        self._learnt = Counter(state.learnt)
        self._held_out_losses = dict(state.held_out_losses)
        self._general_losses = dict(state.general_losses)
        self._general_base = dict(state.general_base)
        if SIGNALS_FILE in files:
            self.signals.unpack(files[SIGNALS_FILE], learnt_with.drift)
        else:
            self.begin_signals()
        # Probes that the user has added since.
        with self.served():
            self._held_out_losses |= self._evaluate([p for p in self._probes if p.id not in self._held_out_losses])

    def begin_signals(self) -> None:
        """As after a version of a time when none were kept."""
        self.signals = Signals(self.curriculum.drift)
        self.signals.transfer.knew(self._learnt)

    def served_state(self) -> AdapterState:
        """The adapter as it is served, and hashed."""
        with self.served():
            return adapter_state(self._learner.model)

    def files(self) -> dict[str, bytes]:
        """All of the version, by file name; equal versions give equal bytes."""
        held_out = [*self.held_out.samples, *self._probes]
        state = files_of.LearnerState(
            learnt=dict(self._learnt),
            replay=msgspec.convert(msgspec.structs.asdict(self.replay.state()), SurpriseState),
            held_out=self.held_out.state(),
            held_out_losses={sample.id: self._held_out_losses[sample.id] for sample in held_out},
            general_losses=self._general_losses,
            general_base=self._general_base,
        )
        with self.served():
            files = adapter_files(self._learner.model)
        files |= {
            files_of.OPTIMIZER_FILE: pack_state(self._optimizer.state()),
            files_of.REPLAY_FILE: files_of.pack_samples(self.replay.samples),
            files_of.HELD_OUT_FILE: files_of.pack_samples(self.held_out.samples),
            files_of.ANCHORS_FILE: files_of.pack_samples(self.anchors),
            files_of.STATE_FILE: files_of.pack_state(state),
            SIGNALS_FILE: self.signals.pack(),
        }
        if self._slow:
            files[files_of.FAST_FILE] = pack_state(adapter_state(self._learner.model))
        if self._recipe.methods:
            # The slow tensors are in the file of the adapter.
            remembered = {k: t for k, t in self._recipe.state().items() if not k.startswith(_SLOW)}
            files[files_of.RECIPE_FILE] = pack_state(remembered)
        return files

    def served(self) -> AbstractContextManager[None]:
        """Inside, the adapter is the one that is judged and served; outside, the one that learns."""
        return self._slow.swapped() if self._slow else nullcontext()

    def learn(
        self,
        number: int,
        samples: Sequence[Sample],
        forgets: Sequence[Forget],
        on_step: Callable[[int], None] = lambda step: None,
    ) -> Report:
        """The micro-batch that leads to version ``number``. If it is rejected, all is as before but for what was
        forgotten and what is held out."""
        for kept in (self.replay, self.held_out):
            kept.remove(lambda sample: any(must_be_forgotten(sample, forget) for forget in forgets))
        new, held_out, num_superseded, num_skipped = self._sort(samples)
        with self.served():
            self._hold_out(held_out)
        self._keep()
        self.signals.keep({sample.id for sample in (*self.held_out.samples, *self._probes)})
        if not new:
            verdict = Verdict(True, "nothing to learn, weights as before")
            return Report(new, held_out, [], num_superseded, num_skipped, None, verdict, None, 0.0, 0.0)

        weights = {name: parameter.detach().clone() for name, parameter in self._learner.parameters.items()}
        optimizer, recipe = self._optimizer.state(), self._recipe.state()
        replay, replayable = self.replay.state(), list(self.replay.samples)
        corrected = {question for sample in new if (question := _question(sample))}
        self.replay.remove(lambda old: _question(old) in corrected)

        started = self._clock.monotonic()
        s = self.curriculum.learning
        num_replayed = self.signals.drift.replay_samples(s.replay_samples, number)
        replayed: dict[str, Sample] = {}

        def mix_in(step: int) -> list[Sample]:
            drawn = self.replay.draw(num_replayed, version=number, step=step)
            replayed.update((sample.id, sample) for sample in drawn)
            # A young line has little to replay: the base's own answers take its place.
            num_anchors = s.anchor_samples + num_replayed - len(drawn) if s.anchor_samples else 0
            return [*drawn, *anchor.draw(self.anchors, num_anchors, seed=s.seed, version=number, step=step)]

        teach = METHODS[s.method]
        lesson = teach(self._learner, self._optimizer, new, mix_in, s, on_step, recipe=self._recipe, version=number)
        self._catch_up(new)
        stepped = self._clock.monotonic()

        judged = [*self.held_out.samples, *self._probes]
        with self.served():
            if self._slow:
                lesson = dataclasses.replace(lesson, after=self._evaluate(new))
            held_out_after = self._evaluate(judged)
            general_after = self._evaluate(anchor.judged(self.anchors))
            kl = base_kl(self._learner, new[: s.kl_samples]) if s.kl_samples else None
        # What was disliked should become less likely.
        liked = [sample.id for sample in new if not _is_disliked(sample)]
        evidence = Evidence(
            {name: lesson.before[name] for name in liked},
            {name: lesson.after[name] for name in liked},
            {sample.id: self._held_out_losses[sample.id] for sample in judged},
            held_out_after,
            self._general_losses,
            general_after,
            self._general_base,
        )
        verdict = judge(evidence, judged, self.curriculum.gate)
        if verdict.accepted:
            self._note(number, lesson, [sample for sample in new if not _is_disliked(sample)], judged, held_out_after)
            self._held_out_losses, self._general_losses = held_out_after, general_after
            self._learnt.update(sample.task for sample in new)
            if isinstance(self.replay, SurpriseReservoir):
                self.replay.saw(lesson.before | lesson.mixed_in)
            for sample in new:
                self.replay.add(sample)
            self._keep()
        else:
            with torch.no_grad():
                for name, parameter in self._learner.parameters.items():
                    parameter.copy_(weights[name])
            self._optimizer.load(optimizer)
            self._recipe.load(recipe)
            self.replay.load(replay, replayable)
        gate_seconds = self._clock.monotonic() - stepped
        return Report(
            new,
            held_out,
            list(replayed.values()),
            num_superseded,
            num_skipped,
            lesson,
            verdict,
            kl,
            stepped - started,
            gate_seconds,
        )

    def _note(
        self, number: int, lesson: Lesson, new: Sequence[Sample], judged: Sequence[Sample], after: Mapping[str, float]
    ) -> None:
        """Before what was held out is known by its new losses."""
        s = self.curriculum
        before, max_tokens = self._held_out_losses, s.learning.tokens_per_pass
        has_drifted = self.signals.saw(number, self._learner, lesson, new, judged, before, after, max_tokens=max_tokens)
        if has_drifted and s.recipe.blocks_versions == 0:
            begin_block(self._recipe)

    def _catch_up(self, new: Sequence[Sample]) -> None:
        """What should be known should be known by those weights that are served."""
        to_know = [sample for sample in new if sample.until_known]
        if self._slow and to_know:
            target = self.curriculum.learning.target_loss_nats
            self._slow.catch_up(
                lambda: max(self._evaluate(to_know).values()) < target, self.curriculum.recipe.ema_catch_up
            )

    def _keep(self) -> None:
        """Nothing is remembered of samples that are not there any more."""
        if self._recipe.methods:
            self._recipe.keep({sample.id for sample in (*self.replay.samples, *self.anchors)})

    def _sort(self, samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample], int, int]:
        """(new, held out, number superseded, number skipped)."""
        able = [sample for given in samples if self._is_able(sample := self._as_taught(given))]
        last_word = {question: sample.id for sample in able if (question := _question(sample))}
        current = [s for s in able if (question := _question(s)) is None or last_word[question] == s.id]
        held_out = [sample for sample in current if self._is_held_out(sample)]
        out = {sample.id for sample in held_out}
        new = [sample for sample in current if sample.id not in out]
        return new, held_out, len(able) - len(current), len(samples) - len(able)

    def _as_taught(self, sample: Sample) -> Sample:
        """What was disliked has no answer to imitate, but one to avoid, where the recipe can do that."""
        if not self.curriculum.recipe.rating_strength:
            return sample
        return disliked_answer(sample) or sample

    def _is_able(self, sample: Sample) -> bool:
        """Whether it teaches anything. What somebody disliked without saying what is right must not be imitated."""
        avoidable = sample.rejected is not None or self.curriculum.recipe.rating_strength > 0
        if sample.weight <= 0 or (_is_disliked(sample) and not avoidable):
            return False
        try:
            return self._learner.num_targets(sample) > 0
        except (ValueError, jinja2.TemplateError) as error:
            log.warning("sample %s of event %s cannot be learnt: %s", sample.id, sample.event_id, error)
            return False

    def _is_held_out(self, sample: Sample) -> bool:
        """A function of the sample's id and of how many of its task were learnt."""
        single = sample.until_known or sample.rejected is not None or sample.rating is not None
        if single or sample.task in _NEVER_HELD_OUT or self._learnt[sample.task] < self.curriculum.gate.held_out_after:
            return False
        return randbelow(1_000_000, "held-out", sample.id) < self.curriculum.gate.held_out_ratio * 1_000_000

    def _hold_out(self, samples: Sequence[Sample]) -> None:
        self._held_out_losses |= self._evaluate(samples)
        for sample in samples:
            self.held_out.add(sample)

    def _evaluate(self, samples: Sequence[Sample]) -> dict[str, float]:
        return evaluate(self._learner, samples, self.curriculum.learning.tokens_per_pass)


def _question(sample: Sample) -> tuple[Message, ...] | None:
    """What a sample that should be known is the answer to: of two answers to one question the later holds."""
    return sample.messages[:-1] if sample.until_known and len(sample.messages) > 1 else None


def _is_disliked(sample: Sample) -> bool:
    return sample.rating is not None and sample.rating < 0 and not sample.until_known
