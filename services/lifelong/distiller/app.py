"""The distiller on its sockets: samples from Kafka, the teacher from the live pointer, versions of the student out."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import threading

from lifelong.contracts import metrics as names
from lifelong.contracts import topics
from lifelong.contracts.codec import decode, encode
from lifelong.contracts.samples import SampleRecord
from lifelong.contracts.versions import Manifest, version_event, version_key
from lifelong.distiller.config import Settings
from lifelong.distiller.handler import Distiller, Round
from lifelong.distiller.models import Models
from lifelong.errors import CorruptVersionError, DecodeError, UnreachableError
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

_POLL_SECONDS = 0.5
_RETRY_SECONDS = 1.0


class DistillerApp:
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
    ) -> None:
        self._settings = settings
        self._source = source
        self._sink = sink
        self._registry = registry
        self._metrics = metrics
        self._health = health
        self._clock = clock
        self._line = settings.line.student
        self._dead_letters = DeadLetters(sink, "distiller", metrics)
        self._number = 0
        self._seen_live = 0
        health.details = lambda: {"line": self._line, "version": version_key(self._line, self._number)}

    def run(self, stop: threading.Event) -> None:
        """
        Raises:
            FencedError: another distiller has taken over this line.
        """
        name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
        writer = acquire_writer(self._registry, self._line, name, None, stop)
        if writer is None:
            return
        with writer:
            models, distiller = self._recover(writer)
            self._health.ready = True
            while not stop.is_set():
                writer.check()
                try:
                    self._turn(models, distiller, writer, stop)
                    self._health.failure = None
                except UnreachableError as error:
                    # Nothing is lost by waiting: what was read is kept, the rest is still there.
                    self._health.failure = str(error)
                    log.warning("%s; trying again", error)
                    stop.wait(_RETRY_SECONDS)

    def close(self) -> None:
        self._source.close()
        self._sink.close()

    def _turn(self, models: Models, distiller: Distiller, writer: Writer, stop: threading.Event) -> None:
        for record in self._source.poll(_POLL_SECONDS):
            self._take(distiller, record)
        self._maybe_distil(models, distiller, writer, stop)

    def _recover(self, writer: Writer) -> tuple[Models, Distiller]:
        newest = self._registry.newest(self._line)
        models = Models(self._settings, newest)
        distiller = Distiller(models.student, models.student.model, self._settings.distiller)
        if newest is not None:
            distiller.restore(newest, {name: self._registry.weights(newest, name) for name in newest.files})
            self._number = newest.number
        state = self._registry.catch_up(self._line, epoch=writer.epoch)
        self._metrics.set(names.EPOCH, writer.epoch, line=self._line)
        self._show_pointers(state.live)
        samples = topics.SAMPLES.name
        self._source.seek({Partition(samples, number): at for number, at in distiller.positions.items()})
        log.info("at %s, layers %s of the base", version_key(self._line, self._number), list(models.kept_layers))
        return models, distiller

    def _take(self, distiller: Distiller, record: Record) -> None:
        self._metrics.count(names.RECORDS, topic=record.topic)
        try:
            sample_record = decode(record.value, SampleRecord)
        except DecodeError as error:
            # The trainer reads the same records and says what to do; the student can do without one.
            self._dead_letters.send(record, error)
            self._sink.flush()
            return
        self._dead_letters.note_good()
        distiller.take(sample_record, record.partition, record.offset, self._clock.monotonic())
        self._metrics.set(
            names.LAG_SECONDS,
            max(0.0, self._clock.now() - record.time),
            topic=record.topic,
            partition=str(record.partition),
        )

    def _maybe_distil(self, models: Models, distiller: Distiller, writer: Writer, stop: threading.Event) -> None:
        self._show_lag()
        try:
            live = self._registry.state(self._settings.line.name).live
            if live != self._seen_live:
                distiller.note_teacher_changed(self._clock.monotonic())
                self._seen_live = live
            teacher = version_key(self._settings.line.name, live)
            if live == 0 or not distiller.is_due(teacher, self._clock.monotonic()):
                return
            manifest = self._registry.manifest(self._settings.line.name, live)
            files = {name: self._registry.weights(manifest, name) for name in manifest.files}
        except UnreachableError as error:
            log.warning("the live version is not known now: %s", error)
            return
        except CorruptVersionError as error:
            # It may have been replaced, and its files dropped, since the pointer was read.
            log.warning("the live version cannot be read: %s", error)
            return
        models.load_teacher(files)
        self._distil(models, distiller, teacher, manifest, writer, stop)

    def _distil(
        self,
        models: Models,
        distiller: Distiller,
        teacher: str,
        teacher_manifest: Manifest,
        writer: Writer,
        stop: threading.Event,
    ) -> None:
        started = self._clock.monotonic()
        draft = models.draft(
            line=self._line,
            number=self._number + 1,
            epoch=writer.epoch,
            created=self._clock.now(),
            teacher=teacher,
        )
        result = distiller.learn(
            models.teacher,
            draft,
            self._clock.monotonic(),
            lambda step: not stop.is_set() and not writer.lost.is_set(),
        )
        if result is None:
            return
        manifest = self._commit(result, writer, stop)
        if manifest is None:
            return
        self._number = manifest.number
        self._observe(manifest, result, self._clock.monotonic() - started)
        verdict = manifest.verdict
        assert verdict is not None
        log.info(
            "%s from %s: %s, agreement %.3f → %.3f, CE %.3f, KL %.3f",
            version_key(self._line, manifest.number),
            teacher,
            verdict.reason,
            result.before.agreement,
            result.after.agreement,
            result.after.ce,
            result.after.kl,
        )
        self._registry.prune(self._line, self._settings.artifacts.keep_versions)

    def _commit(self, result: Round, writer: Writer, stop: threading.Event) -> Manifest | None:
        """``None``: told to stop while a server did not answer; the round is lost and will be repeated."""
        committed: Manifest | None = None
        while True:
            try:
                if committed is None:
                    committed = self._registry.commit(result.manifest, result.files)
                accepted = is_accepted(committed)
                now = self._clock.now()
                events = [version_event(committed, "committed" if accepted else "rejected", now)]
                if accepted:
                    state = self._registry.promote(self._line, committed.number, epoch=writer.epoch)
                    self._show_pointers(state.live)
                    if state.live == committed.number:
                        events.append(version_event(committed, "promoted", now))
                for event in events:
                    key = version_key(event.line, event.number).encode()
                    self._sink.send(topics.VERSIONS.name, encode(event), key=key)
                self._sink.flush()
                return committed
            except UnreachableError as error:
                log.warning("version not published yet, trying again: %s", error)
                writer.check()
                if stop.wait(_RETRY_SECONDS):
                    return committed

    def _observe(self, manifest: Manifest, result: Round, seconds: float) -> None:
        assert manifest.verdict is not None
        verdict = "accepted" if manifest.verdict.accepted else "rejected"
        self._metrics.count(names.VERSIONS, line=self._line, verdict=verdict)
        self._metrics.observe(names.DISTILL_SECONDS, seconds)
        settings = self._settings.distiller
        for term, value in (
            ("ce", result.after.ce),
            ("kl", result.after.kl),
            ("total", result.after.loss(settings)),
        ):
            self._metrics.set(names.DISTILL_LOSS, value, term=term)
        self._metrics.set(names.AGREEMENT, result.after.agreement)

    def _show_pointers(self, live: int) -> None:
        self._metrics.set(names.VERSION, live, line=self._line, pointer="live")
        self._metrics.set(names.VERSION, self._number, line=self._line, pointer="committed")

    def _show_lag(self) -> None:
        for partition, waiting in self._source.pending().items():
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
