"""One schedule: a burst is published while its faults strike; then all must come to rest, and be well."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import msgspec
from tests.schedules import strokes
from tests.schedules.again import differences
from tests.schedules.burst import Burst, burst
from tests.schedules.evidence import pending_samples, problems, wrong_outcomes
from tests.schedules.faults import Fault, Schedule, schedule
from tests.schedules.watch import LINE, Step, Watch
from tests.schedules.world import SECONDS, STANDBY, World

from lifelong.contracts import topics
from lifelong.errors import LifelongError, UnreachableError
from lifelong.registry.registry import is_accepted
from lifelong.stream.kafka import KafkaSink

_REST_SECONDS = 360.0
_WELL_SECONDS = 30.0
_LOOP_SECONDS = 0.01
_LOOK_SECONDS = 0.1
_LATE_SECONDS = 1.0
_MAX_EXITS = 8

# A process may end by itself, to be started again, where it cannot do its work: whoever has lost its lease, and whoever
# cannot write to the disk.
_MAY_END = {
    "stall-trainer": ("trainer", STANDBY),
    "valkey-wipe": ("trainer", STANDBY, "distiller"),
    "disk-full": ("trainer", STANDBY, "distiller"),
}


class Result(msgspec.Struct, frozen=True):
    schedule: Schedule
    seconds: float
    num_events: int
    num_versions: int
    hits: tuple[str, ...]
    """Of each fault, what it hit."""
    exits: tuple[str, ...]
    problems: tuple[str, ...]

    def line(self) -> str:
        faults = " ".join(f"{fault}={hit}" for fault, hit in zip(self.schedule.faults, self.hits, strict=True))
        exits = f" ended={','.join(self.exits)}" if self.exits else ""
        verdict = "ok" if not self.problems else "FAILED: " + "; ".join(self.problems)
        counts = f"{self.seconds:5.1f}s {self.num_events:3d} events {self.num_versions:2d} versions"
        return f"{self.schedule.seed:5d} {counts}  {faults}{exits}  {verdict}"


@dataclass
class _Planned:
    fault: Fault
    hit: str = ""
    due_at: float | None = None
    ends_at: float = 0.0
    undo: strokes.Undo = None
    is_late: bool = False
    """Its moment did not come before all else was done."""
    look_at: float | None = None
    """When to see how far the commit got that was cut off."""


class _Publisher(threading.Thread):
    """Sends each item until the broker has it: so some are there twice."""

    def __init__(self, world: World, burst: Burst) -> None:
        super().__init__(name="publisher", daemon=True)
        self._world = world
        self._burst = burst
        self.num_events = 0
        self.is_done = False
        self.num_tries = 0
        self.give_up = threading.Event()

    def run(self) -> None:
        sink: KafkaSink | None = None
        for item in self._burst.items:
            time.sleep(item.pause_seconds)
            while not self.give_up.is_set():
                self.num_tries += 1
                try:
                    sink = sink or KafkaSink(self._world.kafka_settings, patience_seconds=5)
                    sink.send(item.topic, item.value, key=item.key, headers=item.headers)
                    sink.flush()
                except LifelongError:
                    self.give_up.wait(0.2)
                else:
                    break
            self.num_events += item.topic == topics.EVENTS.name
        if sink is not None:
            sink.close()
        self.is_done = True


@dataclass
class Runner:
    """Runs schedules one after the other on one world, whose line goes on growing."""

    world: World
    run_name: str
    _planned: list[_Planned] = field(default_factory=list)
    _steps: Counter[Step] = field(default_factory=Counter)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    watch: Watch = field(init=False)

    def on_step(self, step: Step) -> None:
        """Called by the thread that sees the store, at once."""
        with self._lock:
            self._steps[step] += 1
            for planned in self._planned:
                moment = planned.fault.moment
                if moment.after == step and not planned.hit and self._steps[step] >= moment.count:
                    time.sleep(moment.delay_ms / 1000)
                    self._strike(planned)

    def run(self, seed: int) -> Result:
        started = time.monotonic()
        what = burst(seed, self.run_name)
        plan = schedule(seed, what.num_events)
        self._begin(plan)
        publisher = _Publisher(self.world, what)
        first = self.watch.store.newest()
        before_number = first.number if first else 0
        before = (self.watch.topics.num_accounted(), self.watch.store.num_versions, self._num_outputs())
        publisher.start()
        deadline = started + _REST_SECONDS
        found: list[str] = []
        idle_since: float | None = None
        look_at = 0.0
        waits_for = ""
        while True:
            now = time.monotonic()
            with self._lock:
                self.world.supervise()
                self._turn(publisher, before, now)
                pending = [planned for planned in self._planned if not planned.hit]
                active = [planned for planned in self._planned if planned.hit and (planned.undo or planned.look_at)]
            if now >= look_at and publisher.is_done and not active:
                look_at = now + _LOOK_SECONDS
                waits_for = self._restless(what)
                if not waits_for and not pending:
                    break
                idle_since = (idle_since or now) if not waits_for else None
                if idle_since and pending and now - idle_since > _LATE_SECONDS:
                    # Its moment did not come: something else was in the way. It strikes now.
                    with self._lock:
                        pending[0].is_late = True
                        self._strike(pending[0])
            if len(self.world.exits) > _MAX_EXITS:
                found.append(f"processes end again and again: {waits_for}")
                break
            if now > deadline:
                found.append(f"no rest after {_REST_SECONDS:.0f} s: {waits_for or 'faults last'}")
                break
            time.sleep(_LOOP_SECONDS)
        publisher.give_up.set()
        publisher.join()
        self._undo_all()
        if not found:
            found = self._verdict(what)
        if not found:
            found = self._trained_again(before_number) + self._unsaid()
        exits, unexplained = self._exits(plan)
        found += sorted(set(unexplained)) + self.world.failures()
        for name in SECONDS:
            self.world.dismiss(name)
        return Result(
            plan,
            time.monotonic() - started,
            what.num_events,
            self.watch.store.num_versions - before[1],
            tuple(f"late-{p.hit}" if p.is_late else p.hit or "never" for p in self._planned),
            tuple(exits),
            tuple(found),
        )

    # Faults.

    def _begin(self, plan: Schedule) -> None:
        for name in ("collector", "trainer", "inference", "distiller", "kafka", "valkey"):
            with self.world.log(name).open("a") as log:
                log.write(f"=== schedule {plan.seed}: {' '.join(map(str, plan.faults))}\n")
        with self._lock:
            self._steps.clear()
            self._planned = [_Planned(fault) for fault in plan.faults]
            for fault in plan.faults:
                strokes.prepare(fault, self.world)

    def _turn(self, publisher: _Publisher, before: tuple[int, int, int], now: float) -> None:
        counts = {
            "sent": publisher.num_events,
            "accounted": self.watch.topics.num_accounted() - before[0],
            "version": self.watch.store.num_versions - before[1],
            "answered": self._num_outputs() - before[2],
        }
        for planned in self._planned:
            moment = planned.fault.moment
            if not planned.hit:
                if planned.due_at is None and counts.get(moment.after, -1) >= moment.count:
                    planned.due_at = now + moment.delay_ms / 1000
                if planned.due_at is not None and now >= planned.due_at:
                    self._strike(planned)
            elif planned.undo and now >= planned.ends_at:
                undo, planned.undo = planned.undo, None
                undo()
            elif planned.look_at and now >= planned.look_at:
                planned.look_at = None
                planned.hit = strokes.landing(self.watch)

    def _strike(self, planned: _Planned) -> None:
        fault = planned.fault
        planned.hit, planned.undo = strokes.strike(fault, self.world, self.watch)
        planned.ends_at = time.monotonic() + fault.seconds
        if fault.kind == "kill-in-commit" and planned.hit == "hit":
            planned.look_at = time.monotonic() + 0.2

    def _undo_all(self) -> None:
        for planned in self._planned:
            if planned.undo:
                undo, planned.undo = planned.undo, None
                undo()

    # Rest.

    def _num_outputs(self) -> int:
        return self.watch.topics.count(topics.OUTPUTS.name)

    def _restless(self, what: Burst) -> str:
        """What is yet to be done, empty if nothing is."""
        watch, world = self.watch, self.world
        if not world.servers_run():
            return "a server starts"
        events = sum(self._event_ends().values())
        if watch.topics.num_accounted() < events:
            return f"{events - watch.topics.num_accounted()} events are not accounted for"
        newest = watch.store.newest()
        if newest is None or (LINE, newest.number) in watch.pointers.damaged:
            return "no whole version"
        if waiting := pending_samples(watch, newest):
            return f"{waiting} samples are not learnt"
        if missing := [name for name in what.request_ids if name not in watch.topics.answered]:
            return f"requests {missing} are not answered"
        state = watch.pointers.now(LINE)
        accepted = next(
            (m for _, m in sorted(watch.store.manifests(LINE).items(), reverse=True) if is_accepted(m)), None
        )
        if state is None or (accepted and state.candidate != accepted.number):
            return f"the pointers stand at {state}"
        if not world.is_well():
            return f"not all are well: {world.state()}"
        serves = world.health("inference").get("version")
        if serves != f"{LINE}@{state.live}":
            return f"{serves} answers, {state.live} is live"
        try:
            ends = watch.topics.ends()
        except UnreachableError as error:
            return str(error)
        return "" if watch.topics.has_read(ends) else "topics are not read to the end"

    def _event_ends(self) -> dict[int, int]:
        return {
            partition.number: end
            for partition, end in self.watch.topics.read_up_to.items()
            if partition.topic == topics.EVENTS.name
        }

    # Verdict.

    def _verdict(self, what: Burst) -> list[str]:
        """What is wrong and stays so: the distiller may still be in the middle of something."""
        deadline = time.monotonic() + _WELL_SECONDS
        while True:
            found = problems(self.watch)
            found += wrong_outcomes(what, self.watch)
            if not found or time.monotonic() > deadline:
                return found
            self.world.supervise()
            time.sleep(0.2)

    def trained_again_from_the_base(self) -> list[str]:
        """What comes out otherwise; for the end, for it takes as long as all that was learnt."""
        return self._trained_again(0)

    def _unsaid(self) -> list[str]:
        """A version that was lost is not passed over in silence."""
        found = []
        for planned in self._planned:
            if planned.hit.startswith("tore-"):
                key = f"{LINE}@{planned.hit.removeprefix('tore-')}"
                said = self.world.log("trainer").read_text(errors="replace").rpartition("=== schedule")[2]
                if not any(key in line and (" WARNING " in line or " ERROR " in line) for line in said.splitlines()):
                    found.append(f"no trainer has said that {key} is damaged")
        return found

    def _trained_again(self, since: int) -> list[str]:
        newest = self.watch.store.newest()
        return differences(self.world, self.watch, newest, since) if newest else []

    def _exits(self, plan: Schedule) -> tuple[list[str], list[str]]:
        """Those that ended by themselves, and those of them that had no reason to."""
        may = {name for kind in plan.kinds for name in _MAY_END.get(kind, ())}
        exits, self.world.exits = self.world.exits, []
        unexplained = [
            f"{exit.name} ended with code {exit.code}: {exit.last_words[24:]}"
            for exit in exits
            if exit.name not in may or exit.code != 1
        ]
        return [f"{exit.name}:{exit.code}" for exit in exits], unexplained
