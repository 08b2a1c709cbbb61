"""One micro-batch, from parent to candidate, and back if the gate says so."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import jinja2
import msgspec
import torch

from lifelong.contracts.events import Forget
from lifelong.contracts.samples import Sample, must_be_forgotten
from lifelong.contracts.versions import Verdict
from lifelong.learning import anchor
from lifelong.learning.gate import contradicts, is_suspect, judge, mean
from lifelong.learning.kto import disliked_answer
from lifelong.learning.losses import evaluate
from lifelong.learning.meter import base_kl
from lifelong.learning.methods import METHODS, OPTIMIZERS, REPLAYS
from lifelong.learning.online import Lesson
from lifelong.learning.recipes import make_recipe, slow_weights
from lifelong.learning.replay import randbelow
from lifelong.learning.surprise import SurpriseState
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
from lifelong.trainer.attempts import Attempt, Before, Course, Refused, Report, lesson_of, main_tasks, verdict_of
from lifelong.trainer.claims import claims_of
from lifelong.trainer.config import Curriculum
from lifelong.trainer.judging import Judging
from lifelong.trainer.kinds import is_disliked, is_single, question_of
from lifelong.trainer.mixing import Mixture
from lifelong.trainer.signals import SIGNALS_FILE, Signals, begin_block

log = logging.getLogger(__name__)

_SLOW = "ema/slow."
"""What the slow weights are called in the state of a recipe."""


class Schooling:
    """The learner and all that its next version depends on.

    ``begin`` or ``restore`` comes first; then each ``learn`` makes the next version out of the present one.
    """

    def __init__(self, learner: AdapterLearner, curriculum: Curriculum, clock: Clock) -> None:
        """The adapter of ``learner`` is as fresh as at the beginning when this returns."""
        self._learner = learner
        self.curriculum = curriculum
        self._clock = clock
        learning = curriculum.learning
        learner.reset()
        self._optimizer = OPTIMIZERS[learning.optimizer](learner.parameters, learning)
        self.replay = REPLAYS[learning.replay](learning.replay_capacity, learning.seed)
        self.judging = Judging(curriculum.gate, learning.seed)
        self.signals = Signals(curriculum.drift)
        self._learnt: Counter[str] = Counter()

    def begin(self, prompts: Sequence[str], anchors: Sequence[Sample] | None = None) -> None:
        """A line that has no versions yet: the base's own answers and texts are taken down before anything changes.

        Args:
            anchors: as they were taken down when the line began; without, they are made now.
        """
        if anchors is None:
            asked = prompts or anchor.PROMPTS
            anchors = anchor.make_anchors(self._learner.base_answers, self._learner.base_texts, asked)
        self._set_out(anchors)
        self.judging.begin(anchor.judged(self.anchors), self._evaluate)

    def _set_out(self, anchors: Sequence[Sample]) -> None:
        self.anchors = list(anchors)
        learning, learnt = self.curriculum.learning, anchor.learnt(anchors)
        self._learner.reset()  # what a method takes for the beginning must be the beginning
        self._recipe = make_recipe(
            self.curriculum.recipe,
            self._learner.parameters,
            seed=learning.seed,
            reference_tokens=learning.reference_tokens,
            tokens_per_pass=learning.tokens_per_pass,
            anchors=learnt,
            inputs=lambda: self._learner.layer_inputs(learnt),
        )
        self._slow = slow_weights(self._recipe)

    def restore(self, files: Mapping[str, bytes], learnt_with: Curriculum) -> None:
        """The state of a version. An optimizer or a recipe that is another than it was begins anew.

        Args:
            learnt_with: how the version was learnt.

        Raises:
            ValueError: the adapter or the optimizer have another shape. CorruptVersionError.
        """
        self._set_out(files_of.unpack_samples(files.get(files_of.ANCHORS_FILE, b""), files_of.ANCHORS_FILE))
        served = unpack_state(files[ADAPTER_FILE])
        fast = files.get(files_of.FAST_FILE)
        # Without slow weights of its own it goes on from what was served.
        load_adapter_state(self._learner.model, unpack_state(fast) if fast and self._slow else served)
        if learnt_with.learning.optimizer == self.curriculum.learning.optimizer:
            self._optimizer.load(unpack_state(files[files_of.OPTIMIZER_FILE]))
        if learnt_with.recipe == self.curriculum.recipe and self._recipe.methods:
            slow = {f"{_SLOW}{name}": tensor for name, tensor in served.items()} if self._slow else {}
            self._recipe.load(unpack_state(files[files_of.RECIPE_FILE]) | slow)
        elif self._slow:
            self._slow.begin_with(served)
        state = files_of.unpack_state(files)
        replay, recent, older, probes = (
            files_of.unpack_samples(files.get(name, b""), name)
            for name in (
                files_of.REPLAY_FILE,
                files_of.HELD_OUT_FILE,
                files_of.OLDER_FILE,
                files_of.PROBES_FILE,
            )
        )
        self.replay.load(state.replay, replay)
        self._learnt = Counter(state.learnt)
        with self.served():
            self.judging.load(state.judging, recent, older, probes, anchor.judged(self.anchors), self._evaluate)
        if SIGNALS_FILE in files:
            self.signals.unpack(files[SIGNALS_FILE], learnt_with.drift)
        else:
            self.begin_signals()

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
        state = files_of.LearnerState(
            learnt=dict(self._learnt),
            replay=msgspec.convert(msgspec.to_builtins(self.replay.state()), SurpriseState),
            judging=self.judging.state(),
        )
        with self.served():
            files = adapter_files(self._learner.model)
        files |= {
            files_of.OPTIMIZER_FILE: pack_state(self._optimizer.state()),
            files_of.REPLAY_FILE: files_of.pack_samples(self.replay.samples),
            files_of.HELD_OUT_FILE: files_of.pack_samples(self.judging.recent),
            files_of.OLDER_FILE: files_of.pack_samples(self.judging.older.samples),
            files_of.PROBES_FILE: files_of.pack_samples(self.judging.probes),
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
        probes: Sequence[Sample] = (),
    ) -> Report:
        """The micro-batch that leads to version ``number``. What of it is rejected leaves no trace, but for what was
        forgotten, the probes, and suspicion."""
        for kept in (self.replay, self.judging):
            kept.remove(lambda sample: any(must_be_forgotten(sample, forget) for forget in forgets))
        new, held_out, num_superseded, num_skipped = self._sort(samples)
        with self.served():
            self.judging.add_probes([probe for probe in probes if self._is_able(probe)], self._evaluate)
        self._keep()
        self.signals.keep({sample.id for sample in self.judging.held_out})
        if not new:
            with self.served():
                self.judging.hold_out(held_out, self._evaluate(held_out))
            verdict = Verdict(True, "nothing to learn, weights as before")
            return Report(new, held_out, [], [], num_superseded, num_skipped, None, verdict, None, 0.0, 0.0)
        course = Course(
            number,
            len(new),
            main_tasks(new),
            self.judging.look({sample.task for sample in new}),
            held_out,
            on_step,
            self.curriculum.gate.bisect_attempts,
        )
        known = self.judging.last_losses
        whole = self._attempt(new, course)
        attempts = [whole]
        if not whole.verdict.accepted:
            attempts = self._parts(whole, course)
        good = [attempt for attempt in attempts if attempt.verdict.accepted]
        refused = [Refused(list(part.new), part.verdict.reason) for part in attempts if not part.verdict.accepted]
        lesson = lesson_of(whole, good)
        if good:
            self._note(course, lesson, [sample for part in good for sample in part.new], known)
        self.judging.note(course.present, number, accepted=not refused)
        many = [sample for sample in new if not is_single(sample)]
        unlikely = {sample.task for sample in many if any(sample.id in part.unlikely for part in attempts)}
        self.judging.note_claims({sample.task for sample in many}, unlikely)
        if not refused:
            # What came with something bad is most likely as bad, and would have the gate defend it from now on.
            self.judging.hold_out(held_out, course.present)
        return Report(
            new,
            held_out,
            list(course.replayed.values()),
            refused,
            num_superseded,
            num_skipped,
            replace(lesson, num_steps=course.num_steps, num_tokens=course.num_tokens),
            verdict_of(whole, good, refused),
            (good or [whole])[-1].base_kl,
            course.step_seconds,
            course.gate_seconds,
        )

    def _parts(self, rejected: Attempt, course: Course) -> list[Attempt]:
        """The smallest parts that were accepted or refused, in order. A part begins where what was accepted before it
        has led to."""
        new = rejected.new
        # What contradicts is known one by one; what does harm has to be looked for.
        unlikely = [sample for sample in new if sample.id in rejected.unlikely]
        found = [rejected._replace(new=unlikely)] if unlikely else []
        middle = len(new) // 2
        parts = [[s for s in new if s.id not in rejected.unlikely]] if unlikely else [new[:middle], new[middle:]]
        tasks = {sample.task for sample in unlikely} if len(parts[0]) * 4 <= len(new) else set()
        wrong = [s for s in parts[0] if not is_single(s) and (s.task in tasks or self.judging.is_suspected(s.task))]
        if unlikely and len(wrong) == len(parts[0]):  # it is what is left of nearly all, or under suspicion
            return [rejected]
        if course.num_attempts_left < len(parts) or not all(parts):
            return [rejected]
        course.num_attempts_left -= len(parts)
        for part in parts:
            attempt = self._attempt(part, course)
            found += [attempt] if attempt.verdict.accepted else self._parts(attempt, course)
        return found

    def _attempt(self, new: Sequence[Sample], course: Course) -> Attempt:
        """If it is rejected, all is as before."""
        before = self._before()
        corrected = {question for sample in new if (question := question_of(sample))}
        self.replay.remove(lambda old: question_of(old) in corrected)

        started = self._clock.monotonic()
        s, first_step = self.curriculum.learning, course.num_steps
        to_know = [sample for sample in new if sample.until_known]
        mixture = Mixture(
            self.replay,
            self.anchors,
            to_know,
            s,
            version=course.number,
            num_old=self.signals.drift.replay_samples(s.replay_samples, course.number),
            first_step=first_step,
        )

        def on_step(step: int) -> None:
            course.on_step(first_step + step)

        lesson = METHODS[s.method](
            self._learner,
            self._optimizer,
            new,
            mixture,
            s,
            on_step,
            recipe=self._recipe,
            version=course.number,
            score=self._scored(new),
            old=mixture.losses,
        )
        # A step that was found needless is not taken, and what was drawn for it not learnt.
        course.replayed.update((key, sample) for key, sample in mixture.drawn.items() if key in lesson.mixed_in)
        self._catch_up(to_know)
        stepped = self._clock.monotonic()

        # Whether it was learnt is seen by the weights that learn: those that are served may lag behind.
        lesson = self._put_to_the_test(new, lesson)
        verdict, after, unlikely = self._judge(new, lesson, before, course)
        with self.served():
            if self._slow and to_know:
                lesson = replace(lesson, after=lesson.after | self._evaluate(to_know))
            is_metered = s.kl_samples and course.number % s.kl_every == 0
            kl = base_kl(self._learner, new[: s.kl_samples]) if is_metered else None
        if verdict.accepted:
            course.present = after
            course.unlearnt = {}
            self._learnt.update(sample.task for sample in new)
            self.replay.saw(lesson.before | lesson.mixed_in)
            for sample in new:
                self.replay.add(sample)
            self.replay.note_known(lesson.after | lesson.mixed_in, self.curriculum.learning.target_loss_nats)
            self._keep()
        else:
            self._return_to(before)
        course.num_steps += lesson.num_steps
        course.num_tokens += lesson.num_tokens
        course.step_seconds += stepped - started
        course.gate_seconds += self._clock.monotonic() - stepped
        return Attempt(new, lesson, verdict, kl, unlikely)

    def _scored(self, new: Sequence[Sample]) -> list[Sample]:
        """Those that should be known, and of the others some that should have become more likely, where there are."""
        others = sorted((sample for sample in new if not sample.until_known), key=is_disliked)
        wanted = {sample.id for sample in others[: self.curriculum.gate.judged_new]}
        return [sample for sample in new if sample.until_known or sample.id in wanted]

    def _put_to_the_test(self, new: Sequence[Sample], lesson: Lesson) -> Lesson:
        """Where those that were scored have become less likely, all are scored."""
        liked = [sample for sample in new if not is_disliked(sample)]
        looked_at = [sample for sample in liked if sample.id in lesson.after]
        # What was learnt until it is known has fallen far, and would hide that others rose.
        looked_at = [sample for sample in looked_at if not sample.until_known] or looked_at
        if not looked_at:
            return lesson
        rise = mean({sample.id: lesson.after[sample.id] - lesson.before[sample.id] for sample in looked_at})
        # Written so that NaN is suspect.
        if rise <= self.curriculum.gate.new_tolerance_nats:
            return lesson
        others = [sample for sample in liked if sample.id not in lesson.after]
        return replace(lesson, after=lesson.after | self._evaluate(others))

    def _judge(
        self, new: Sequence[Sample], lesson: Lesson, before: Before, course: Course
    ) -> tuple[Verdict, dict[str, float], set[str]]:
        """And the losses of all that was judged, under the candidate, and the ids of what contradicts."""
        gate, share = self.curriculum.gate, len(new) / course.num_samples
        suspected = self.judging.of_slices(course.suspects)
        judged = {sample.id: sample for sample in [*course.looked_at, *course.held_out, *suspected]}
        with self.served():
            after = self._evaluate(list(judged.values()))
            slices = self.judging.slices(after, {}, (), course.main_tasks)
            course.suspects |= {slice.name for slice in slices if is_suspect(slice, gate, share)}
            tested = self.judging.of_slices(course.suspects)
            after |= self._evaluate([sample for sample in tested if sample.id not in after])
        if missing := [sample for sample in tested if sample.id not in course.present]:
            with self._with_weights(before.served):
                course.present |= self._evaluate(missing)

        def unlearnt(samples: Sequence[Sample]) -> Mapping[str, float]:
            if missing := [sample for sample in samples if sample.id not in course.unlearnt]:
                with self._with_weights(before.weights):
                    course.unlearnt |= self._evaluate(missing)
            return course.unlearnt

        claims = claims_of(new, lesson.before, self.judging, gate, unlearnt)
        # What was disliked should become less likely.
        liked = [sample.id for sample in new if sample.id in lesson.after and not is_disliked(sample)]
        verdict = judge(
            {name: lesson.before[name] for name in liked},
            {name: lesson.after[name] for name in liked},
            self.judging.slices(after, course.present, course.suspects, course.main_tasks),
            gate,
            share,
            claims,
        )
        return verdict, after, {name for claim in claims if contradicts(claim, gate) for name in claim.unlikely}

    def _before(self) -> Before:
        weights = self._weights()
        with self.served():
            served = self._weights() if self._slow else weights
        return Before(
            weights,
            served,
            self._optimizer.state(),
            self._recipe.state(),
            self.replay.state(),
            list(self.replay.samples),
        )

    def _return_to(self, before: Before) -> None:
        self._put(before.weights)
        self._optimizer.load(before.optimizer)
        self._recipe.load(before.recipe)
        self.replay.load(before.replay, before.replayable)

    @contextmanager
    def _with_weights(self, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
        present = self._weights()
        self._put(weights)
        try:
            yield
        finally:
            self._put(present)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self._learner.parameters.items()}

    @torch.no_grad()
    def _put(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self._learner.parameters.items():
            parameter.copy_(weights[name])

    def _note(self, course: Course, lesson: Lesson, new: Sequence[Sample], before: Mapping[str, float]) -> None:
        """Before what was held out is known by its new losses."""
        has_drifted = self.signals.saw(
            course.number,
            self._learner,
            lesson,
            [sample for sample in new if not is_disliked(sample)],
            self.judging.held_out,
            before,
            course.present,
            max_tokens=self.curriculum.learning.tokens_per_pass,
        )
        if has_drifted and self.curriculum.recipe.blocks_versions == 0:
            begin_block(self._recipe)

    def _catch_up(self, to_know: Sequence[Sample]) -> None:
        """What should be known should be known by those weights that are served."""
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
        last_word = {question: sample.id for sample in able if (question := question_of(sample))}
        current = [s for s in able if (question := question_of(s)) is None or last_word[question] == s.id]
        held_out: list[Sample] = []
        for sample in current:
            if self._is_held_out(sample, held_out):
                held_out.append(sample)
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
        if sample.weight <= 0 or (is_disliked(sample) and not avoidable):
            return False
        if sample.text is None and not any(m.role == "assistant" and m.content.strip() for m in sample.messages):
            return False  # An empty answer would teach to be silent.
        try:
            return self._learner.num_targets(sample) > 0
        except (ValueError, jinja2.TemplateError) as error:
            log.warning("sample %s of event %s cannot be learnt: %s", sample.id, sample.event_id, error)
            return False

    def _is_held_out(self, sample: Sample, others: Sequence[Sample]) -> bool:
        """A function of its id, of what was learnt of its task, and of ``others`` that are held out beside it."""
        ratio = self.curriculum.gate.held_out_ratio
        if not ratio or is_single(sample) or self._learnt[sample.task] < self.curriculum.gate.held_out_after:
            return False
        return randbelow(1_000_000, "held-out", sample.id) < ratio * 1_000_000 or self.judging.is_short_of(
            sample, others, self.replay.samples
        )

    def _evaluate(self, samples: Sequence[Sample]) -> dict[str, float]:
        return evaluate(self._learner, samples, self.curriculum.learning.tokens_per_pass)
