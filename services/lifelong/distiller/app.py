"""The distiller on its sockets: samples from Kafka, the teacher from the live pointer, versions of the student out."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch

from lifelong.contracts import metrics as names
from lifelong.contracts import topics
from lifelong.contracts.codec import decode, encode
from lifelong.contracts.samples import SampleRecord
from lifelong.contracts.versions import Change, Manifest, version_event, version_key
from lifelong.distiller.config import Settings
from lifelong.distiller.handler import DRIFTS, Distiller, Round
from lifelong.distiller.models import ADAPTER_FILES, Models
from lifelong.errors import CorruptVersionError, DecodeError, UnknownVersionError, UnreachableError
from lifelong.model.base import BaseModel, load_base
from lifelong.model.settings import ModelSettings
from lifelong.registry.artifacts import open_store
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry, is_accepted
from lifelong.registry.writer import Writer, acquire_writer
from lifelong.runtime.clock import Clock, SystemClock
from lifelong.runtime.health import AppWithHealth, Health, HealthServer
from lifelong.runtime.metrics import Metrics
from lifelong.stream.base import Partition, Record, Sink, Source
from lifelong.stream.dead_letters import DeadLetters
from lifelong.stream.kafka import KafkaSink, KafkaSource

log = logging.getLogger(__name__)

T = TypeVar("T")

_POLL_SECONDS = 0.5
_RETRY_SECONDS = 1.0


class _Interrupted(Exception):
    """The process was told to stop while a server did not answer."""


class _Teacher(NamedTuple):
    manifest: Manifest
    files: dict[str, bytes]


class DistillerApp:
    """What is given may be in memory: so simulations run the same code as the process."""

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
        heartbeat: bool = True,
        load: Callable[[ModelSettings], BaseModel] = load_base,
    ) -> None:
        self._settings = settings
        self._source = source
        self._sink = sink
        self._registry = registry
        self._metrics = metrics
        self._health = health
        self._clock = clock
        self._heartbeat = heartbeat
        self._load = load
        self._line = settings.line.student
        self._dead_letters = DeadLetters(sink, "distiller", metrics)
        self._number = 0
        self._seen_live = 0
        self._live_drifts = 0
        self._unreadable = 0
        health.details = lambda: {"line": self._line, "version": version_key(self._line, self._number)}

    def run(self, stop: threading.Event) -> None:
        """
        Raises:
            FencedError: another distiller has taken over this line.
            ConfigError: base or shape of the student are not those that the line was taught with.
        """
        name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
        writer = acquire_writer(self._registry, self._line, name, None, stop, heartbeat=self._heartbeat)
        if writer is None:
            return
        with writer:
            models, distiller = self._recover(writer)
            self._health.ready = True
            try:
                while not stop.is_set():
                    writer.check()
                    self._turn(models, distiller, writer, stop)
            except _Interrupted:
                # What was half taught is dropped; whoever comes next does it again.
                writer.check()

    def close(self) -> None:
        self._source.close()
        self._sink.close()

    def _recover(self, writer: Writer) -> tuple[Models, Distiller]:
        """Take up the line where its newest version left it, and finish what a predecessor may have left undone."""
        newest = self._registry.newest(self._line)
        # On a GPU some sums have no deterministic kernel; the promise is for CPUs.
        torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
        models = Models(self._settings, newest, self._load)
        distiller = Distiller(models.student, self._settings.distiller, self._clock.monotonic())
        if newest is not None:
            distiller.restore(newest, {name: self._registry.weights(newest, name) for name in newest.files})
            self._number = newest.number
        state = self._registry.catch_up(self._line, epoch=writer.epoch, writer=writer.writer_id)
        self._metrics.set(names.EPOCH, writer.epoch, line=self._line)
        self._show_version(state.live)
        if newest is not None:
            # A predecessor may have died between commit and announcement; to announce twice does no harm.
            self._finish(newest, promoted=is_accepted(newest) and state.live == newest.number)
        samples = topics.SAMPLES.name
        self._source.seek({Partition(samples, number): at for number, at in distiller.positions.items()})
        log.info("at %s, layers %s of the base", version_key(self._line, self._number), list(models.kept_layers))
        return models, distiller

    def _turn(self, models: Models, distiller: Distiller, writer: Writer, stop: threading.Event) -> None:
        """One poll, and one round if it is time for it."""
        for record in self._insist(lambda: self._source.poll(_POLL_SECONDS), writer, stop):
            self._take(distiller, record, writer, stop)
        self._show_lag(self._insist(self._source.pending, writer, stop))
        teacher = self._insist(lambda: self._due_teacher(distiller), writer, stop)
        if teacher is not None:
            models.load_teacher(teacher.manifest, teacher.files)
            self._distil(models, distiller, teacher.manifest, writer, stop)

    def _take(self, distiller: Distiller, record: Record, writer: Writer, stop: threading.Event) -> None:
        self._metrics.count(names.RECORDS, topic=record.topic)
        try:
            decoded = decode(record.value, SampleRecord)
        except DecodeError as error:
            refusal = error
            # What it covered is a gap here as in the trainer, which reads the same records and says what to do.
            self._insist(lambda: self._dead_letter(record, refusal), writer, stop)
            return
        self._dead_letters.note_good()
        found = distiller.take(decoded, record.partition, record.offset, self._clock.monotonic())
        if found == "gap":
            log.debug("offset %d of partition %d: an earlier record is missing", record.offset, record.partition)
        self._metrics.set(
            names.LAG_SECONDS,
            max(0.0, self._clock.now() - record.time),
            topic=record.topic,
            partition=str(record.partition),
        )

    def _due_teacher(self, distiller: Distiller) -> _Teacher | None:
        """The live version of the main line, if it is time to learn from it."""
        line = self._settings.line.name
        live = self._registry.state(line).live
        if live != self._seen_live:
            self._live_drifts = self._drifts(line, live)
            distiller.note_teacher_changed(self._clock.monotonic())
            self._seen_live = live
        if live == 0 or not distiller.is_due(version_key(line, live), self._clock.monotonic(), self._live_drifts):
            return None
        try:
            manifest = self._registry.manifest(line, live)
            if not distiller.may_be_taught_by(manifest):
                return None
            files = {name: self._registry.weights(manifest, name) for name in ADAPTER_FILES}
        except (CorruptVersionError, UnknownVersionError) as error:
            # It may have been replaced, and its files dropped, since the pointer was read.
            if live != self._unreadable:
                log.warning("%s cannot teach: %s", version_key(line, live), error)
                self._unreadable = live
            return None
        return _Teacher(manifest, files)

    def _drifts(self, line: str, live: int) -> int:
        """That the live version has ever seen, where that matters."""
        if live == 0 or not self._settings.distiller.on_drift:
            return 0
        try:
            return int(self._registry.manifest(line, live).metrics.get(DRIFTS, 0))
        except (CorruptVersionError, UnknownVersionError):
            # It was replaced meanwhile; the one that is live now comes next.
            return 0

    def _distil(
        self, models: Models, distiller: Distiller, teacher: Manifest, writer: Writer, stop: threading.Event
    ) -> None:
        started = self._clock.monotonic()
        draft = models.draft(
            line=self._line,
            number=self._number + 1,
            epoch=writer.epoch,
            created=self._clock.now(),
            teacher=version_key(teacher.line, teacher.number),
        )
        log.info("%s learns from %s", version_key(self._line, draft.number), draft.teacher)
        result = distiller.learn(
            models.teacher,
            draft,
            started,
            lambda step: not stop.is_set() and not writer.lost.is_set(),
            int(teacher.metrics.get(DRIFTS, 0)),
        )
        if result is None:
            return
        self._observe(result, self._clock.monotonic() - started)
        manifest = self._insist(lambda: self._registry.commit(result.manifest, result.files), writer, stop)
        self._number = manifest.number
        accepted = is_accepted(manifest)
        if accepted:
            state = self._insist(
                lambda: self._registry.promote(
                    self._line, manifest.number, epoch=writer.epoch, writer=writer.writer_id
                ),
                writer,
                stop,
            )
        else:
            state = self._insist(lambda: self._registry.state(self._line), writer, stop)
        promoted = accepted and state.live == manifest.number
        self._insist(lambda: self._finish(manifest, promoted=promoted), writer, stop)
        self._show_version(state.live)
        self._metrics.count(names.VERSIONS, line=self._line, verdict="accepted" if accepted else "rejected")
        verdict = manifest.verdict
        assert verdict is not None
        log.info(
            "%s from %s: %s, agreement %.3f → %.3f, CE %.3f, KL %.3f",
            version_key(self._line, manifest.number),
            manifest.teacher,
            verdict.reason,
            result.before.agreement,
            result.after.agreement,
            result.after.ce,
            result.after.kl,
        )
        keep = self._settings.artifacts.keep_versions
        self._insist(lambda: self._registry.prune(self._line, keep), writer, stop)

    def _insist(self, action: Callable[[], T], writer: Writer, stop: threading.Event) -> T:
        """The result of ``action``, called again while a server does not answer.

        Raises:
            FencedError: another distiller has taken over meanwhile.
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

    def _finish(self, manifest: Manifest, *, promoted: bool) -> None:
        """What is left to do when a version is there and its pointer has moved; may be done twice."""
        self._announce(manifest, promoted=promoted)
        if promoted and not manifest.parent and (gone := self._registry.drop_left_out(manifest)):
            log.info("deleted the files of the versions that had learnt what was to be forgotten: %s", gone)

    def _announce(self, manifest: Manifest, *, promoted: bool) -> None:
        changes: list[Change] = ["committed" if is_accepted(manifest) else "rejected"]
        if promoted:
            changes.append("promoted")
        key = version_key(manifest.line, manifest.number).encode()
        for change in changes:
            event = version_event(manifest, change, self._clock.now())
            self._sink.send(topics.VERSIONS.name, encode(event), key=key)
        self._sink.flush()

    def _dead_letter(self, record: Record, error: DecodeError) -> None:
        self._dead_letters.send(record, error)
        self._sink.flush()

    def _observe(self, result: Round, seconds: float) -> None:
        self._metrics.observe(names.DISTILL_SECONDS, seconds)
        settings = self._settings.distiller
        for term, value in (
            ("ce", result.after.ce),
            ("kl", result.after.kl),
            ("total", result.after.loss(settings)),
        ):
            self._metrics.set(names.DISTILL_LOSS, value, term=term)
        self._metrics.set(names.AGREEMENT, result.after.agreement)

    def _show_version(self, live: int) -> None:
        self._metrics.set(names.VERSION, live, line=self._line, pointer="live")
        self._metrics.set(names.VERSION, self._number, line=self._line, pointer="committed")

    def _show_lag(self, pending: Mapping[Partition, int]) -> None:
        for partition, waiting in pending.items():
            labels = {"topic": partition.topic, "partition": str(partition.number)}
            self._metrics.set(names.LAG_RECORDS, waiting, **labels)
            if waiting == 0:
                self._metrics.set(names.LAG_SECONDS, 0, **labels)


def build(settings: Settings) -> AppWithHealth:
    clock = SystemClock()
    metrics, health = Metrics("distiller"), Health("distiller")
    server = HealthServer(settings.metrics, metrics, health)
    app = DistillerApp(
        settings,
        source=KafkaSource(settings.kafka, [topics.SAMPLES.name]),
        sink=KafkaSink(settings.kafka),
        registry=Registry(open_store(settings.artifacts), RedisPointers(settings.redis.url), clock),
        metrics=metrics,
        health=health,
        clock=clock,
    )
    return AppWithHealth(app, server)
