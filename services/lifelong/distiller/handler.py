"""The distiller without its sockets: samples and versions in, versions of the student out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jinja2
import msgspec

from lifelong.contracts.events import Forget
from lifelong.contracts.samples import Sample, SampleRecord, coverage, must_be_forgotten
from lifelong.contracts.versions import Manifest, Verdict, finite
from lifelong.distiller.config import DistillerSettings
from lifelong.distiller.round import Scores, distil, score
from lifelong.learning.base import Learner
from lifelong.learning.optimizers import AdamW
from lifelong.learning.replay import ReplayState, Reservoir, randbelow
from lifelong.learning.settings import LearningSettings
from lifelong.model.adapter import (
    WEIGHTS_FILE,
    adapter_files,
    adapter_state,
    load_adapter_state,
    pack_state,
    unpack_state,
)
from lifelong.model.hashing import combined_sha256, tensor_hashes
from lifelong.model.learner import AdapterLearner

log = logging.getLogger(__name__)

OPTIMIZER_FILE = "optimizer.safetensors"
BUFFER_FILE = "buffer.json"
DRIFTS = "drifts"
"""Among the metrics of a manifest: drifts that its line has ever seen; of a student: that its teacher had."""


class BufferState(msgspec.Struct, frozen=True):
    """What is in ``buffer.json``."""

    samples: list[Sample]
    samples_seen: ReplayState
    judged: list[Sample]
    judged_seen: ReplayState


class Round(NamedTuple):
    """A version of the student that is yet to be committed, and what was measured."""

    manifest: Manifest
    files: dict[str, bytes]
    before: Scores
    after: Scores


class Distiller:
    """Drives one student, whose adapter is what a version consists of. Not safe to share between threads.

    After ``learn`` the version must be committed before anything else is learnt: what is in memory is already it.
    """

    def __init__(self, student: AdapterLearner, settings: DistillerSettings, now: float) -> None:
        """``now``: of a monotonic clock, as everywhere here."""
        self._student = student
        self._settings = settings
        self._optimizer = self._fresh_optimizer()
        self._buffer = Reservoir(settings.buffer_samples, settings.seed)
        self._judged = Reservoir(settings.judged_samples, settings.seed)
        self.watermarks: dict[int, int] = {}
        """Source partition → first source offset that was not taken in."""
        self.positions: dict[int, int] = {}
        """Samples partition → the offset to read on from."""
        self.counts: Counter[str] = Counter()
        self._newest_event_time: float | None = None
        self._forgotten_at: dict[int, int] = {}
        """Source partition → where it was asked to forget what the student has learnt; it begins anew after that."""
        self._last_teacher: str | None = None
        self._last_drifts = 0
        self._last_change = self._last_round = now

    def take(self, record: SampleRecord, partition: int, offset: int, now: float) -> Literal["new", "duplicate", "gap"]:
        """Keep the samples of one record, once. ``partition`` and ``offset`` are those in the samples topic."""
        self.positions[partition] = offset + 1
        fate = coverage(record, self.watermarks.get(record.source_partition, 0))
        if fate != "new":
            return fate
        self.watermarks[record.source_partition] = record.to_offset
        if record.forget is not None:
            self._forget(record.forget, record.source_partition, record.to_offset)
        for sample in record.samples:
            if not self._is_able(sample):
                continue
            kept_apart = randbelow(1_000_000, self._settings.seed, "judged", sample.id)
            apart = kept_apart < 1_000_000 * self._settings.judged_ratio
            (self._judged if apart else self._buffer).add(sample)
            self.counts["samples"] += 1
            self._newest_event_time = max(self._newest_event_time or 0.0, sample.event_time)
            self._last_change = now
        return fate

    def is_due(self, teacher: str, now: float, num_drifts: int = 0) -> bool:
        """Whether a round is worth its time: there is something to teach that the student was not taught yet.

        It waits until the stream is quiet, but not longer than ``interval_seconds`` since the last round, or since the
        start: what waits to be read then should all be read before. Where ``on_drift`` is set it does not wait when the
        teacher has seen more drifts than at the last round.

        Args:
            num_drifts: that the teacher has ever seen.
        """
        if teacher == self._last_teacher or len(self._buffer) < self._settings.min_samples:
            return False
        # Fewer than there were: the teacher has forgotten something that had drifted.
        self._last_drifts = min(self._last_drifts, num_drifts)
        if self._settings.on_drift and num_drifts > self._last_drifts:
            return True
        quiet = now - self._last_change >= self._settings.idle_seconds
        return quiet or now - self._last_round >= self._settings.interval_seconds

    def may_be_taught_by(self, teacher: Manifest) -> bool:
        """Whether the teacher has forgotten what the student has to forget."""
        return all(teacher.watermarks.get(partition, 0) >= at for partition, at in self._forgotten_at.items())

    def note_teacher_changed(self, now: float) -> None:
        """The live version moved; a round waits until that has calmed down."""
        self._last_change = now

    def learn(
        self,
        teacher: Learner,
        draft: Manifest,
        now: float,
        on_step: Callable[[int], bool],
        num_drifts: int = 0,
    ) -> Round | None:
        """One round; ``None`` if it was ended early, with the student as it was.

        A student that has learnt what has to be forgotten begins anew: then the parent of the version is 0, and what
        it is judged by is the student as it was before it learnt anything.

        Args:
            draft: line, number, parent, teacher and so on; what was learned is filled in here.
            on_step: called before each step; false ends the round early.
            num_drifts: that the teacher has ever seen.
        """
        as_it_was = self._snapshot()
        if self._forgotten_at:
            draft = msgspec.structs.replace(draft, parent=0)
            self._student.reset()
            self._optimizer = self._fresh_optimizer()
        parent = self._snapshot()
        judged = self._judged.samples or self._buffer.draw(self._settings.judged_samples, version=0)
        before = score(teacher, self._student, judged, self._settings)
        num_tokens = distil(
            teacher,
            self._student,
            self._optimizer,
            lambda step: self._buffer.draw(self._settings.batch_size, version=draft.number, step=step),
            self._settings,
            on_step,
        )
        if num_tokens is None:
            self._restore_snapshot(as_it_was)
            return None
        self._forgotten_at.clear()
        after = score(teacher, self._student, judged, self._settings)
        verdict = self._judge(before, after)
        if not verdict.accepted:
            self._restore_snapshot(parent)
        self._last_teacher, self._last_round, self._last_drifts = draft.teacher, now, num_drifts
        self.counts["accepted" if verdict.accepted else "rejected"] += 1
        hashes = tensor_hashes(adapter_state(self._student.model))
        manifest = msgspec.structs.replace(
            draft,
            tensors=hashes,
            weights_sha256=combined_sha256(hashes),
            watermarks=dict(self.watermarks),
            positions=dict(self.positions),
            counts=dict(self.counts),
            newest_event_time=self._newest_event_time,
            verdict=verdict,
            metrics=finite({"ce": after.ce, "kl": after.kl, "agreement": after.agreement, "tokens": float(num_tokens)})
            | ({DRIFTS: float(num_drifts)} if num_drifts else {}),
        )
        return Round(manifest, self._files(), before, after)

    def restore(self, manifest: Manifest, files: Mapping[str, bytes]) -> None:
        """Go on from a committed version, bit for bit."""
        load_adapter_state(self._student.model, unpack_state(files[WEIGHTS_FILE]))
        self._optimizer.load(unpack_state(files[OPTIMIZER_FILE]))
        state = msgspec.json.decode(files[BUFFER_FILE], type=BufferState)
        self._buffer.load(state.samples_seen, state.samples)
        self._judged.load(state.judged_seen, state.judged)
        self.watermarks, self.positions = dict(manifest.watermarks), dict(manifest.positions)
        self.counts = Counter(manifest.counts)
        self._newest_event_time, self._last_teacher = manifest.newest_event_time, manifest.teacher
        self._last_drifts = int(manifest.metrics.get(DRIFTS, 0))

    def _is_able(self, sample: Sample) -> bool:
        """Whether there is anything in it to say: what somebody disliked without saying what is right has no answer."""
        if sample.weight <= 0:
            return False
        try:
            return self._student.num_targets(sample) > 0
        except (ValueError, jinja2.TemplateError) as error:
            log.warning("sample %s of event %s cannot be distilled on: %s", sample.id, sample.event_id, error)
            return False

    def _forget(self, forget: Forget, partition: int, to_offset: int) -> None:
        removed = [
            name
            for kept in (self._buffer, self._judged)
            for name in kept.remove(lambda sample: must_be_forgotten(sample, forget))
        ]
        # Of what has been in the buffer and is no more nobody knows whose it was.
        has_lost_track = sum(self._buffer.state().seen.values()) > self._buffer.capacity
        if removed or has_lost_track:
            self._forgotten_at[partition] = to_offset

    def _judge(self, before: Scores, after: Scores) -> Verdict:
        was, is_now = before.loss(self._settings), after.loss(self._settings)
        # Written so that NaN is rejected.
        accepted = is_now <= was
        scores = {"loss_before": was, "loss_after": is_now}
        scores |= {"agreement_before": before.agreement, "agreement_after": after.agreement}
        return Verdict(accepted, "closer to the teacher" if accepted else "farther from the teacher", finite(scores))

    def _fresh_optimizer(self) -> AdamW:
        learning = LearningSettings(learning_rate=self._settings.learning_rate, beta2=0.999)
        return AdamW(self._student.parameters, learning)

    def _files(self) -> dict[str, bytes]:
        buffer = BufferState(self._buffer.samples, self._buffer.state(), self._judged.samples, self._judged.state())
        return {
            **adapter_files(self._student.model),
            OPTIMIZER_FILE: pack_state(self._optimizer.state()),
            BUFFER_FILE: msgspec.json.encode(buffer),
        }

    def _snapshot(self) -> dict[str, bytes]:
        files = self._files()
        return {name: files[name] for name in (WEIGHTS_FILE, OPTIMIZER_FILE)}

    def _restore_snapshot(self, files: Mapping[str, bytes]) -> None:
        load_adapter_state(self._student.model, unpack_state(files[WEIGHTS_FILE]))
        self._optimizer.load(unpack_state(files[OPTIMIZER_FILE]))
