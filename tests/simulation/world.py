"""One run: the four processes, what they share, and a supervisor that starts whatever has died."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.simulation import model, parts
from tests.simulation.config import RunConfig
from tests.simulation.disk import SimulatedDisk
from tests.simulation.events import Workload
from tests.simulation.faults import WORLD, ZOMBIES, Faults, error_of
from tests.simulation.invariants import Books, Evidence, Move
from tests.simulation.schedule import Event, Killed, Process, Schedule, SimulatedClock, Task
from tests.simulation.server import ServerApp
from tests.simulation.slots import AWAY, App, Pointers, Slot, is_expected

from lifelong.collector.app import CollectorApp, group_id
from lifelong.collector.dedupe import LocalSeen
from lifelong.collector.joins import LocalHalves
from lifelong.contracts import topics
from lifelong.contracts.codec import decode
from lifelong.contracts.requests import Output
from lifelong.contracts.versions import Manifest, VersionEvent, parse_version_key, version_key
from lifelong.distiller.app import DistillerApp
from lifelong.errors import CorruptVersionError, LifelongError
from lifelong.memory.local import LocalMemory
from lifelong.registry import layout
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.registry import Registry, is_accepted
from lifelong.runtime.health import Health
from lifelong.trainer.app import TrainerApp

log = logging.getLogger(__name__)

LINE, STUDENT = "lifelong", "lifelong-student"
COLLECTORS, SERVERS = group_id(LINE), f"lifelong.inference.{LINE}"
SESSION_SECONDS = 10.0
_ROOT = Path("/store")
_PATIENCE_SECONDS = 400.0
_MAX_POINTS = 150_000
_GRACE_SECONDS = 2.0


class World:
    def __init__(self, config: RunConfig, workload: Workload) -> None:
        self.config = config
        self.workload = workload
        kinds = ["collector"] * 2 + [*["trainer"] * 3]
        kinds += ["server"] * bool(config.num_servers) + ["distiller"] * bool(config.num_distillers)
        self.faults = Faults(config.seed, kinds, config.num_faults)
        self.schedule = Schedule(config.seed, self._on_point)
        self.clock = SimulatedClock(self.schedule)
        single = (topics.VERSIONS, topics.EVENTS_DLQ, topics.SAMPLES_DLQ, topics.REQUESTS_DLQ)
        self.broker = parts.Broker(
            {topic.name: 1 for topic in single}, default_partitions=config.num_partitions, clock=self.clock
        )
        self.disk = SimulatedDisk()
        self.disk.on_link = self._note_commit
        self.store = DirectoryStore(_ROOT, self.disk.mounted(lambda step: None))
        self.pointers = Pointers(self.clock, self.note_move)
        self.memory = LocalMemory()
        self.seen = LocalSeen(7 * 24 * 3600.0, 0.8)
        self.halves = LocalHalves()
        self.outputs = parts.OutputStore()
        self.moves: list[Move] = []
        self.committers: dict[tuple[str, int], str] = {}
        self.followed: dict[str, list[int]] = {}
        self.problems: list[str] = []
        self._away: dict[str, float] = {}
        self._lossy_until = 0.0
        self._zombie: str | None = None
        """The point at which the next trainer that comes there is stalled."""
        self._num_to_publish = len(workload.events) + len(workload.requests)
        self._orphans: list[parts.Sink] = []
        self._settled_at: float | None = None
        self._is_ending = False
        counts = {"collector": config.num_collectors, "trainer": config.num_trainers}
        counts |= {"server": config.num_servers, "distiller": config.num_distillers}
        self.slots = [Slot(kind, index) for kind, number in counts.items() for index in range(number)]

    # -- the run -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        r = self.faults.random
        for topic, records in ((topics.EVENTS, self.workload.events), (topics.REQUESTS, self.workload.requests)):
            for record in records:
                self.schedule.at(record.at, self._publisher(topic.name, record))
        for slot in self.slots:
            self.schedule.at(r.choice([0.0, 0.0, r.uniform(0, 15)]), lambda slot=slot: self._start(slot))
        for _ in range(self.config.num_world_faults):
            what = r.choice(WORLD)
            # These need somebody at work to strike at.
            last = max(1.0, self.workload.events[-1].at) if what in ("zombie", "lossy") else self.config.fault_seconds
            self.schedule.at(r.uniform(0.1, last), lambda what=what: self._strike(what))
        self.schedule.at(self.config.fault_seconds, self._end_faults)
        try:
            self.schedule.run(self._is_over)
            self._is_ending = True
            for slot in self.slots:
                if slot.stop is not None:
                    slot.stop.set()
            self.schedule.run(lambda: self._is_stuck() or all(slot.process is None for slot in self.slots))
        finally:
            self.schedule.end()

    def _publisher(self, topic: str, record: Any) -> Callable[[], None]:
        def publish() -> None:
            self.broker.append(topic, record.value, record.key, record.partition, record.headers, None)
            self._num_to_publish -= 1

        return publish

    def _is_over(self) -> bool:
        if self._is_stuck():
            self.problems.append(f"does not come to rest: {self.why_not_settled()}")
            return True
        if self._settled_at is None:
            return False
        return self.schedule.now >= self._settled_at + _GRACE_SECONDS

    def _is_stuck(self) -> bool:
        return self.schedule.now > _PATIENCE_SECONDS or self.schedule.num_points > _MAX_POINTS

    def _end_faults(self) -> None:
        self.faults.is_over = True
        self._away.clear()
        self._lossy_until = 0.0
        self._look()

    def _look(self) -> None:
        why_not = self.why_not_settled()
        self._settled_at = None if why_not else self._settled_at or self.schedule.now
        self.schedule.after(0.5, self._look)

    def why_not_settled(self) -> str | None:
        """What is left to be done, if anything."""
        if self._num_to_publish or self._orphans or any(slot.process is None for slot in self.slots):
            return "something is to come yet"
        for topic, group in ((topics.EVENTS.name, COLLECTORS), (topics.REQUESTS.name, SERVERS)):
            if topic == topics.REQUESTS.name and not self.config.num_servers:
                continue
            for partition in self.broker.partitions(topic):
                if (self.broker.committed(group, partition) or 0) < self.broker.end(partition):
                    return f"{partition} is committed up to {self.broker.committed(group, partition)}"
        return self._why_not_learnt()

    def _why_not_learnt(self) -> str | None:
        books = Books(self.evidence())
        newest = next(iter(books.chain(LINE)), None)
        pending = list(books.between(newest.watermarks if newest else {}, books.ends))
        num_samples = sum(len(account.record.samples) for account in pending)
        if num_samples > self.max_pending or any(account.record.forget for account in pending):
            return f"{num_samples} samples wait"
        events = [decode(record.value, VersionEvent) for record in self.broker.records(topics.VERSIONS.name)]
        announced = {(event.line, event.number) for event in events}
        for line in (LINE, STUDENT):
            chain = books.chain(line)
            if secret := [manifest.number for manifest in chain if (line, manifest.number) not in announced]:
                return f"{version_key(line, secret[0])} is not announced"
            accepted = next((manifest.number for manifest in chain if is_accepted(manifest)), None)
            state = self.pointers.read(line)
            # Where there are no pointers, whoever looks makes them.
            if accepted is not None and state is not None and state.live != accepted:
                return f"{version_key(line, accepted)} is not live, {state} is"
            for slot in self.slots:
                if slot.kind == "server" and state is not None and slot.app is not None:
                    key, _, _ = slot.app.versions.live(line)
                    if key != version_key(line, state.live) and (line == LINE or state.live):
                        return f"{slot.name} serves {key}"
        if self.config.num_distillers and newest is not None:
            student = next(iter(books.chain(STUDENT)), None)
            live = self.pointers.read(LINE)
            buffered = sum(len(account.record.samples) for account in books.accounts.values())
            teacher = version_key(LINE, live.live) if live and live.live else None
            is_due = teacher and buffered > 6 and not self.config.with_forgets
            if is_due and (student is None or student.teacher != teacher):
                return f"the student is of {student and student.teacher}, {teacher} is live"
        return None

    @property
    def max_pending(self) -> int:
        return self.config.batch_size - 1 if self.config.size_only else 0

    # -- processes ---------------------------------------------------------------------------------------------------

    def _start(self, slot: Slot) -> None:
        if self._is_ending:
            return
        slot.num_starts += 1
        process = slot.process = Process(slot.kind, f"{slot.name}#{slot.num_starts}")
        if self.config.with_skew:
            process.clock_skew = self.faults.random.uniform(-3600, 3600)
        slot.stop = Event(self.schedule)
        slot.app, slot.sources, slot.sinks = None, [], []
        task = self.schedule.spawn(process, "main", lambda: self._live(slot, process))
        task.on_end = lambda: self._ended(slot, process)
        log.info("%.3f %s starts", self.schedule.now, process.name)

    def _live(self, slot: Slot, process: Process) -> None:
        assert slot.stop is not None
        app = slot.app = getattr(self, f"_make_{slot.kind}")(slot, process)
        try:
            app.run(slot.stop)
        finally:
            app.close()

    def _ended(self, slot: Slot, process: Process) -> None:
        """Whatever else the process had running ends with it."""
        error = process.error
        log.info("%.3f %s ends: %r", self.schedule.now, process.name, error)
        if error is not None and not is_expected(error, self.faults):
            self.problems.append(f"{process.name} died of {''.join(traceback.format_exception(error)).strip()}")
        has_left = not process.is_killed and error is None and slot.stop is not None and slot.stop.is_set()
        process.is_killed = True
        slot.process = None
        if has_left:
            self._restart(slot)
            return
        r = self.faults.random
        for source in slot.sources:
            if hasattr(source.inner, "evict"):
                self.schedule.after(SESSION_SECONDS, source.inner.evict)
        for sink in slot.sinks:
            if sink.inner.num_under_way:
                self._orphans.append(sink)
                self.schedule.after(r.uniform(0, 15), lambda sink=sink: self._deliver(sink))
        self._restart(slot)

    def _restart(self, slot: Slot) -> None:
        if not self._is_ending:
            self.schedule.after(self.faults.random.choice([0.1, 1.0, 12.0]), lambda: self._start(slot))

    def _deliver(self, sink: parts.Sink) -> None:
        """What a dead process had sent arrives, or a part of it."""
        if self.faults.random.random() < 0.7:
            sink.inner.deliver(self.faults.random.randint(0, sink.inner.num_under_way))
        self._orphans.remove(sink)

    def _make_collector(self, slot: Slot, process: Process) -> App:
        return CollectorApp(
            self.config.collector,
            source=self._group_source(slot, topics.EVENTS.name, COLLECTORS),
            sink=self._sink(slot),
            memory=self._hooked(self.memory, "memory"),
            seen=self._hooked(self.seen, "seen"),
            halves=self._hooked(self.halves, "halves"),
            metrics=parts.NoMetrics(),
            health=Health("collector"),
            clock=SimulatedClock(self.schedule, process),
        )

    def _make_trainer(self, slot: Slot, process: Process) -> App:
        more: dict[str, Any] = {"load": model.load, "history": lambda: self._source(topics.SAMPLES.name)}
        known = inspect.signature(TrainerApp.__init__).parameters
        return TrainerApp(
            self.config.trainer,
            source=self._source(topics.SAMPLES.name),
            sink=self._sink(slot),
            registry=self.registry(process),
            metrics=parts.NoMetrics(),
            health=Health("trainer"),
            clock=SimulatedClock(self.schedule, process),
            **{name: value for name, value in more.items() if name in known},
        )

    def _make_distiller(self, slot: Slot, process: Process) -> App:
        return DistillerApp(
            self.config.distiller,
            source=self._source(topics.SAMPLES.name),
            sink=self._sink(slot),
            registry=self.registry(process),
            metrics=parts.NoMetrics(),
            health=Health("distiller"),
            clock=SimulatedClock(self.schedule, process),
            load=model.load,
        )

    def _make_server(self, slot: Slot, process: Process) -> App:
        return ServerApp(
            self.config.server,
            self.schedule,
            base=model.load(self.config.server.model),
            registry=self.registry(process),
            requests=self._group_source(slot, topics.REQUESTS.name, SERVERS),
            sink=self._sink(slot),
            letter_sink=self._sink(slot),
            store=self._hooked(self.outputs, "outputs"),
            clock=SimulatedClock(self.schedule, process),
            note_epoch=lambda line, epoch: self.followed.setdefault(f"{process.name} {line}", []).append(epoch),
        )

    def registry(self, process: Process) -> Registry:
        store = DirectoryStore(_ROOT, self.disk.mounted(self.schedule.point))
        return Registry(store, self._hooked(self.pointers, "pointers"), SimulatedClock(self.schedule, process))

    def _group_source(self, slot: Slot, topic: str, group: str) -> Any:
        source = parts.Source(self.broker.group_source([topic], group), self.broker, self.schedule)
        slot.sources.append(source)
        return source

    def _source(self, topic: str) -> Any:
        return parts.Source(self.broker.source([topic]), self.broker, self.schedule)

    def _sink(self, slot: Slot) -> Any:
        sink = parts.Sink(self.broker, self.schedule)
        slot.sinks.append(sink)
        return sink

    def _hooked(self, inner: Any, part: str) -> Any:
        return parts.Hooked(inner, part, self.schedule)

    # -- faults ------------------------------------------------------------------------------------------------------

    def _on_point(self, task: Task, point: str) -> str | None:
        now = self.schedule.now
        for what, until in self._away.items():
            if until > now and point in AWAY[what]:
                raise error_of(point)
        if point == "stream.send" and now < self._lossy_until:
            return self.faults.lossy(task)
        fault = self.faults.at(task, point)
        if point == self._zombie and task.process.kind == "trainer" and not self.faults.is_over:
            self._zombie = None
            self._replace(task, point)
            return None
        if fault is None:
            return None
        log.info("%.3f %s: %s at %s", now, task.process.name, fault, point)
        r = self.faults.random
        if fault == "crash":
            task.process.is_killed = True
            raise Killed
        if fault == "stall":
            self._stall(task.process, r.choice([1.0, 8.0, 25.0, 60.0]))
        elif fault == "hang":
            task.stalled_until = now + r.choice([1.0, 8.0, 25.0])
        elif fault == "fail":
            raise error_of(point)
        return fault

    def _replace(self, task: Task, point: str) -> None:
        """It does not answer, so somebody starts another in its place; then it wakes up."""
        log.info("%.3f %s is a zombie at %s", self.schedule.now, task.process.name, point)
        self._stall(task.process, self.faults.random.choice([15.0, 25.0, 40.0]))
        if sum(slot.kind == "trainer" for slot in self.slots) == 1:
            successor = Slot("trainer", 1)
            self.slots.append(successor)
            self.schedule.after(1.0, lambda: self._start(successor))

    def _stall(self, process: Process, seconds: float) -> None:
        """As by SIGSTOP, and SIGCONT later: if it takes long, the group goes on without it."""
        process.stalled_until = self.schedule.now + seconds
        slot = next(slot for slot in self.slots if slot.process is process)

        def miss() -> None:
            if process.stalled_until > self.schedule.now:
                for source in slot.sources:
                    if hasattr(source.inner, "evict"):
                        source.inner.evict()

        self.schedule.after(SESSION_SECONDS, miss)

    def _strike(self, what: str) -> None:
        r = self.faults.random
        self.faults.note(what)
        log.info("%.3f %s", self.schedule.now, what)
        if what == "rebalance":
            self.broker.rebalance(COLLECTORS)
            self.broker.rebalance(SERVERS)
        elif what == "pointers lost":
            self.pointers.lose()
            self.moves += [Move(line, None) for line in (LINE, STUDENT)]
        elif what == "power cut":
            for slot in self.slots:
                if slot.process is not None:
                    slot.process.is_killed = True
            self.disk.power_cut(r)
            for line in (LINE, STUDENT):
                self.note_move(line)
        elif what == "lossy":
            self._lossy_until = self.schedule.now + r.uniform(2, 12)
        elif what == "zombie":
            self._zombie = r.choice(ZOMBIES)
        elif what == "retire":
            slot = r.choice(self.slots)
            if slot.stop is not None:
                slot.stop.set()
        else:
            self._away[what] = self.schedule.now + r.choice([0.5, 5.0, 15.0])

    # -- what is seen ------------------------------------------------------------------------------------------------

    def note_move(self, line: str) -> None:
        state = self.pointers.read(line)
        if state is not None:
            self.moves.append(Move(line, state, self._is_complete(line, state.live)))

    def _is_complete(self, line: str, number: int) -> bool:
        if number == 0:
            return True
        try:
            manifest = self.store.manifest(line, number)
            for name, entry in manifest.files.items():
                self.store.get(manifest.folder, name, entry)
        except LifelongError:
            return False
        return True

    def _note_commit(self, path: Path, data: bytes) -> None:
        del data
        number = layout.manifest_number(path.name)
        task = self.schedule.current
        if number is not None and task is not None:
            self.committers[path.parts[-3], number] = task.process.name

    def manifests(self, line: str) -> dict[int, Manifest]:
        found = {}
        for number in self.store.numbers(line):
            try:
                found[number] = self.store.manifest(line, number)
            except CorruptVersionError as error:
                self.problems.append(f"{version_key(line, number)}: {error}")
        return found

    def evidence(self) -> Evidence:
        def of(topic: topics.Topic) -> list[Any]:
            return self.broker.records(topic.name)

        manifests = {line: self.manifests(line) for line in (LINE, STUDENT)}
        return Evidence(
            events=of(topics.EVENTS),
            samples=of(topics.SAMPLES),
            dead_letters=of(topics.EVENTS_DLQ),
            manifests=manifests,
            read_file=lambda manifest, name: self.store.get(manifest.folder, name, manifest.files[name]),
            version_events=of(topics.VERSIONS),
            requests=of(topics.REQUESTS) if self.config.num_servers else (),
            request_letters=of(topics.REQUESTS_DLQ),
            outputs=of(topics.OUTPUTS),
            moves=self.moves,
            committers=self.committers,
            followed=self.followed,
            max_pending_samples=self.max_pending,
            expected_answer=lambda output: _expected(output, manifests),
        )


def _expected(output: Output, manifests: dict[str, dict[int, Manifest]]) -> str | None:
    line, number = parse_version_key(output.version)
    if not number:
        return "base"
    manifest = manifests.get(line, {}).get(number)
    return manifest.weights_sha256 if manifest else None
