"""The trainer on its sockets: samples from Kafka, versions to the artifact store, pointers in Redis."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import threading
from collections.abc import Callable
from typing import TypeVar

import msgspec
import torch

from lifelong.contracts import topics
from lifelong.contracts.versions import Change, Manifest, version_event, version_key
from lifelong.errors import DecodeError, StreamGapError, UnreachableError
from lifelong.model.base import BaseModel, load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import ModelSettings
from lifelong.registry.artifacts import open_store
from lifelong.registry.base import PointerState
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry, is_accepted
from lifelong.registry.writer import Writer, acquire_writer
from lifelong.runtime.clock import Clock, SystemClock
from lifelong.runtime.health import AppWithHealth, Health, HealthServer
from lifelong.runtime.metrics import Metrics
from lifelong.stream.base import Partition, Record, Sink, Source
from lifelong.stream.dead_letters import DeadLetters
from lifelong.stream.kafka import KafkaSink, KafkaSource
from lifelong.trainer.config import Settings
from lifelong.trainer.handler import Candidate, Trainer
from lifelong.trainer.history import History
from lifelong.trainer.intake import Trigger
from lifelong.trainer.observed import Observed
from lifelong.trainer.precision import with_dtype
from lifelong.trainer.recorded import as_recorded
from lifelong.trainer.relearning import Relearning

log = logging.getLogger(__name__)

T = TypeVar("T")

_POLL_SECONDS = 0.5
_MAX_POLL_RECORDS = 500
_PRUNE_EVERY = 5
_RETRY_SECONDS = 1.0


class _Interrupted(Exception):
    """The process was told to stop, or lost its lease, in the middle of a micro-batch."""


class TrainerApp:
    """What is given may be in memory: so simulations run the same code as the process.

    Args:
        history: opens another reader of the samples topic, for what has to be learnt again.
        load: the base, ready for an adapter to be put on it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        source: Source,
        sink: Sink,
        registry: Registry,
        metrics: Metrics,
        health: Health,
        clock: Clock,
        history: Callable[[], Source],
        load: Callable[[ModelSettings], BaseModel] = load_base,
        heartbeat: bool = True,
    ) -> None:
        self._settings = settings
        self._source = source
        self._sink = sink
        self._registry = registry
        self._health = health
        self._clock = clock
        self._load = load
        self._heartbeat = heartbeat
        self._line = settings.line.name
        self._observed = Observed(metrics, self._line, clock)
        self._relearning = Relearning(registry, self._line, History(history), self._observed)
        self._dead_letters = DeadLetters(sink, "trainer", metrics)
        self._trainer: Trainer | None = None
        self._waits_for: str | None = None
        self._positions: dict[Partition, int] = {}
        """Where reading goes on."""
        health.details = self._details

    def run(self, stop: threading.Event) -> None:
        """
        Raises:
            FencedError: another trainer has taken over this line.
        """
        # Before the lease: a standby has it ready, and after a crash it is loaded while the old lease runs out.
        prepared = self._prepare()
        name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
        writer = acquire_writer(
            self._registry, self._line, name, None, stop, heartbeat=self._heartbeat, tell=self._wait_for
        )
        if writer is None:
            return
        self._waits_for = None
        with writer:
            trainer = self._recover(writer, prepared)
            self._health.ready = True
            try:
                while not stop.is_set():
                    writer.check()
                    self._turn(trainer, writer, stop)
            except _Interrupted:
                # What was half learnt is dropped; it is read again by whoever comes next.
                writer.check()

    def close(self) -> None:
        self._source.close()
        self._sink.close()

    def _wait_for(self, what: str) -> None:
        self._waits_for = what

    def _prepare(self) -> tuple[ModelSettings, BaseModel] | None:
        """The base as the line has it by now; ``None``: the store does not answer, and waiting for the lease is waiting
        for it too."""
        settings = self._settings
        # On a GPU some sums have no deterministic kernel; the promise is for CPUs.
        torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
        if settings.model.threads:
            torch.set_num_threads(settings.model.threads)
        try:
            whole = self._registry.newest_whole(self._line)
        except UnreachableError as error:
            log.warning("%s", error)
            return None
        model = as_recorded(settings.model, whole[0]) if whole else with_dtype(settings.model, settings.adapter)
        return model, self._load(model)

    def _recover(self, writer: Writer, prepared: tuple[ModelSettings, BaseModel] | None) -> Trainer:
        """Take up the line where its newest version left it, and finish what a predecessor may have left undone."""
        whole = self._registry.newest_whole(self._line)
        newest = whole[0] if whole else None
        highest = self._registry.highest_number(self._line)
        settings = self._settings
        if prepared is None or (newest is not None and as_recorded(settings.model, newest) != prepared[0]):
            # Nothing could be known of the line, or it began while this process waited, with another dtype.
            prepared = self._prepare()
            if prepared is None:
                raise UnreachableError("the artifact store has gone away again")
        model, base = prepared
        learner = AdapterLearner(
            base, settings.adapter, seed=settings.learning.seed, max_tokens=settings.learning.max_tokens
        )
        trainer = self._trainer = Trainer(learner, settings, self._clock)
        trainer.newest = highest
        if whole is None:
            if highest:
                log.error("no version of %s is left whole: it begins anew, from all samples there are", self._line)
            trainer.begin()
        else:
            trainer.restore(*whole)
            if whole[0].number < highest:
                log.error("on from %s, what came after it is learnt again", version_key(self._line, trainer.number))
        state = self._registry.catch_up(self._line, epoch=writer.epoch, newest=newest, writer=writer.writer_id)
        self._observed.started(trainer, state, writer.epoch)
        if newest is not None:
            # A predecessor may have died between commit and announcement; to announce twice does no harm.
            self._finish(newest, state)
        samples = topics.SAMPLES.name
        self._positions = {Partition(samples, number): at for number, at in trainer.positions.items()}
        self._source.seek(self._positions)
        log.info("at %s, %d threads, %s", version_key(self._line, trainer.number), torch.get_num_threads(), model.dtype)
        return trainer

    def _turn(self, trainer: Trainer, writer: Writer, stop: threading.Event) -> None:
        """One poll, and one micro-batch if it is time for it."""
        if not trainer.intake.is_full:
            due = trainer.intake.seconds_to_trigger(self._clock.monotonic())
            wait = _POLL_SECONDS if due is None else min(due, _POLL_SECONDS)
            room = min(_MAX_POLL_RECORDS, self._settings.trainer.max_pending_samples - trainer.intake.num_samples)
            for record in self._insist(lambda: self._poll(trainer, wait, room), writer, stop):
                self._take(trainer, record, writer, stop)
        if at_once := trainer.intake.to_withdraw():
            self._insist(lambda: self._relearning.withdraw(trainer, at_once, writer), writer, stop)
        self._observed.waiting(trainer, self._insist(self._source.pending, writer, stop))
        trigger = trainer.ready()
        if trigger is not None:
            self._learn(trainer, trigger, writer, stop)

    def _poll(self, trainer: Trainer, wait: float, room: int) -> list[Record]:
        """
        Raises:
            StreamGapError: samples that were not learnt are gone, and nobody has said that this is to be put up with.
        """
        try:
            records = self._source.poll(wait, room)
        except StreamGapError as gap:
            if gap.wanted >= gap.first:
                raise
            if self._settings.trainer.on_gap == "stop":
                log.error("to go on without what is gone, and count it as lost: LIFELONG_TRAINER__ON_GAP=skip, once")
                raise
            log.error("%s; going on at %d, what is missing counts as lost", gap, gap.first)
            self._positions[Partition(topics.SAMPLES.name, gap.partition)] = gap.first
            self._source.seek(self._positions)
            trainer.intake.skip(gap.partition)
            return []
        for record in records:
            self._positions[Partition(record.topic, record.partition)] = record.offset + 1
        return records

    def _take(self, trainer: Trainer, record: Record, writer: Writer, stop: threading.Event) -> None:
        try:
            found = trainer.take(record)
        except DecodeError as error:
            refusal = error
            self._insist(lambda: self._dead_letter(trainer, record, refusal), writer, stop)
            return
        self._observed.taken(record, found)
        self._dead_letters.note_good()

    def _learn(self, trainer: Trainer, trigger: Trigger, writer: Writer, stop: threading.Event) -> None:
        def on_step(step: int) -> None:
            if stop.is_set() or writer.lost.is_set():
                raise _Interrupted
            self._observed.stepped(step)
            self._relearning.withdraw_again(writer)

        if trigger == "forget":
            candidate = self._forget(trainer, writer, stop, on_step)
        else:
            candidate = trainer.learn(trigger, epoch=writer.epoch, on_step=on_step)
        started = self._clock.monotonic()
        registry = self._registry
        manifest = self._insist(lambda: registry.commit(candidate.manifest, candidate.files), writer, stop)
        accepted = is_accepted(manifest)
        state = self._insist(lambda: registry.state(self._line), writer, stop)
        if accepted:
            # Where something is to be forgotten at once, only the version without it ends that.
            live = trigger == "forget" or not state.withdrawn
            state = self._insist(
                lambda: registry.promote(
                    self._line, manifest.number, epoch=writer.epoch, live=live, writer=writer.writer_id
                ),
                writer,
                stop,
            )
        self._insist(lambda: self._finish(manifest, state), writer, stop)
        self._observed.learnt(trainer, candidate, state.live, self._clock.monotonic() - started)
        verdict = manifest.verdict
        assert verdict is not None
        log.log(
            logging.WARNING if candidate.report.refused else logging.INFO,
            "%s %s: %d of %d samples, %d steps, loss %.3f → %.3f, %s (%s)",
            version_key(self._line, manifest.number),
            "accepted" if accepted else "rejected",
            len(candidate.report.learnt),
            len(candidate.report.new),
            manifest.batches[0].num_steps,
            manifest.metrics.get("loss_before_nats", float("nan")),
            manifest.metrics.get("loss_after_nats", float("nan")),
            trigger,
            verdict.reason,
        )
        if manifest.number % _PRUNE_EVERY == 0:
            keep = self._settings.artifacts.keep_versions
            self._insist(lambda: registry.prune(self._line, keep), writer, stop)

    def _forget(
        self, trainer: Trainer, writer: Writer, stop: threading.Event, on_step: Callable[[int], None]
    ) -> Candidate:
        forgets = trainer.intake.next_forgets()
        found = self._insist(lambda: self._relearning.plan(trainer, forgets), writer, stop)
        if found.batches:
            self._insist(lambda: self._relearning.relearn(trainer, found, forgets, on_step), writer, stop)
        numbers = [manifest.number for manifest in found.batches]
        since = version_key(self._line, found.start.number if found.start else 0)
        reason = f"{len(numbers)} micro-batches relearnt from {since} on" if numbers else "nothing of it was learnt"
        if found.trouble:
            log.error("not everything could be forgotten: %s", found.trouble)
            reason = f"{reason}; not everything could be forgotten: {found.trouble}"
        return trainer.forget(numbers, reason, epoch=writer.epoch)

    def _finish(self, manifest: Manifest, state: PointerState) -> None:
        """What is left to do when a version is there and its pointer has moved; may be done twice."""
        self._announce(manifest, promoted=is_accepted(manifest) and state.live == manifest.number)
        if manifest.batches[0].trigger == "forget":
            self._relearning.withdrawn_to = None
        if manifest.relearned:
            gone = self._registry.drop_left_out(manifest)
            log.info("deleted the files of the versions that had to be left out: %s", gone or "none were left")

    def _insist(self, action: Callable[[], T], writer: Writer, stop: threading.Event) -> T:
        """The result of ``action``, called again while a server does not answer.

        Raises:
            FencedError: another trainer has taken over meanwhile.
        """
        while True:
            try:
                result = action()
            except UnreachableError as error:
                self._health.failure = str(error)
                log.warning("%s; trying again", error)
                writer.check()
                if stop.wait(_RETRY_SECONDS):
                    raise _Interrupted from error
            else:
                self._health.failure = None
                return result

    def _announce(self, manifest: Manifest, *, promoted: bool) -> None:
        changes: list[Change] = ["committed" if is_accepted(manifest) else "rejected"]
        if promoted:
            changes.append("promoted")
        key = version_key(manifest.line, manifest.number).encode()
        for change in changes:
            event = version_event(manifest, change, self._clock.now())
            self._sink.send(topics.VERSIONS.name, msgspec.json.encode(event), key=key)
        self._sink.flush()

    def _dead_letter(self, trainer: Trainer, record: Record, error: DecodeError) -> None:
        log.error(
            "%s partition %d offset %d cannot be decoded (%s). Source partition %d stands still at offset %d until the "
            "collector sends what this record covered again: set its group back to that offset",
            record.topic,
            record.partition,
            record.offset,
            error,
            record.partition,
            trainer.intake.watermarks.get(record.partition, 0),
        )
        self._dead_letters.send(record, error)
        self._sink.flush()

    def _details(self) -> dict[str, object]:
        trainer = self._trainer
        if trainer is None:
            return {"line": self._line, "waits_for": self._waits_for}
        return {
            "line": self._line,
            "version": version_key(self._line, trainer.number),
            "pending_samples": trainer.intake.num_samples,
            "counts": dict(trainer.counts),
        }


def build(settings: Settings) -> AppWithHealth:
    clock = SystemClock()
    metrics, health = Metrics("trainer"), Health("trainer")
    server = HealthServer(settings.metrics, metrics, health)
    registry = Registry(open_store(settings.artifacts), RedisPointers(settings.redis.url), clock)
    app = TrainerApp(
        settings,
        source=KafkaSource(settings.kafka, [topics.SAMPLES.name]),
        sink=KafkaSink(settings.kafka),
        registry=registry,
        metrics=metrics,
        health=health,
        clock=clock,
        history=lambda: KafkaSource(settings.kafka, [topics.SAMPLES.name]),
    )
    return AppWithHealth(app, server)
