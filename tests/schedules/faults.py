"""What goes wrong in a schedule, and when: a function of its seed.

A moment is something that is seen to happen (so many events were sent, a version's folder appeared), and so much later.
"""

from __future__ import annotations

import random
from typing import Literal

import msgspec

After = Literal["sent", "accounted", "version", "answered", "folder", "scratch", "manifest"]
"""``sent``, ``accounted``, ``answered``, ``version``: so many events, accounts, outputs, versions of this schedule.
``folder``: the files of a version are begun; ``scratch``: its manifest is; ``manifest``: it exists, and no pointer
names it yet."""

Kind = Literal[
    "kill",
    "kill-two",
    "kill-in-commit",
    "freeze",
    "stall-trainer",
    "stall-member",
    "kafka-restart",
    "valkey-restart",
    "valkey-wipe",
    "disk-full",
    "torn-artifact",
    "clock-skew",
]

PROCESSES = ("collector", "trainer", "inference", "distiller")

# Each schedule has one of these by its seed, so that all have their share; the first ten are all different.
MAIN_KINDS: tuple[Kind, ...] = (
    "kill-in-commit",
    "kafka-restart",
    "kill-two",
    "valkey-restart",
    "disk-full",
    "stall-trainer",
    "valkey-wipe",
    "clock-skew",
    "torn-artifact",
    "stall-member",
    "kill-in-commit",
    "kafka-restart",
    "kill",
    "valkey-restart",
    "disk-full",
    "kill-two",
    "valkey-wipe",
    "clock-skew",
    "torn-artifact",
    "kill-in-commit",
)
_BESIDE: tuple[Kind, ...] = (
    "kill",
    "kill",
    "kill",
    "freeze",
    "freeze",
    "kill-in-commit",
    "kafka-restart",
    "valkey-restart",
)
"""What may come on top."""


class Moment(msgspec.Struct, frozen=True):
    after: After
    count: int = 1
    delay_ms: int = 0


class Fault(msgspec.Struct, frozen=True):
    kind: Kind
    moment: Moment
    targets: tuple[str, ...] = ()
    """Processes or servers; for ``torn-artifact`` what is done to which file."""
    seconds: float = 0.0
    """How long it lasts."""
    shift_seconds: int = 0
    """``clock-skew``: ahead, or behind."""

    def __str__(self) -> str:
        what = f"{self.kind}({'+'.join(self.targets)})" if self.targets else self.kind
        shift = f"{self.shift_seconds:+d}s" if self.shift_seconds else ""
        return f"{what}{shift}@{self.moment.after}{self.moment.count}+{self.moment.delay_ms}ms"


class Schedule(msgspec.Struct, frozen=True):
    seed: int
    faults: tuple[Fault, ...]

    @property
    def kinds(self) -> frozenset[Kind]:
        return frozenset(fault.kind for fault in self.faults)


def schedule(seed: int, num_events: int) -> Schedule:
    """``num_events``: that the schedule publishes."""
    draw = random.Random(f"faults {seed}")
    kinds = [MAIN_KINDS[seed % len(MAIN_KINDS)], *draw.sample(_BESIDE, draw.choice((0, 0, 1, 1, 2)))]
    return Schedule(seed, tuple(_fault(kind, draw, num_events) for kind in kinds))


def _fault(kind: Kind, draw: random.Random, num_events: int) -> Fault:
    moment = _moment(draw, num_events)
    match kind:
        case "kill":
            return Fault(kind, moment, (draw.choice(PROCESSES),))
        case "kill-two":
            return Fault(kind, moment, tuple(draw.sample(PROCESSES, 2)))
        case "kill-in-commit":
            after: After = draw.choice(("folder", "scratch", "manifest", "manifest"))
            # Writing takes about a millisecond, and so does being killed.
            delay_ms = draw.choice((0, 0, 0, 1, 2))
            return Fault(kind, Moment(after, draw.randint(1, 2), delay_ms), ("trainer",))
        case "freeze":
            return Fault(kind, moment, (draw.choice((*PROCESSES, "kafka", "valkey")),), draw.uniform(0.5, 3))
        case "stall-trainer":
            # Longer than its lease of 8 s, while a successor waits.
            moment = Moment(draw.choice(("version", "folder", "sent")), 1, draw.choice((0, 50, 200)))
            return Fault(kind, moment, ("trainer",), draw.uniform(12, 14))
        case "stall-member":
            # Longer than the session of its group, which is 10 s too, while another shares the work of a collector.
            return Fault(kind, moment, (draw.choice(("collector", "collector", "inference")),), draw.uniform(11.5, 13))
        case "kafka-restart":
            return Fault(kind, moment, ("kafka",), draw.choice((0.0, 0.5, 2.0)))
        case "valkey-restart":
            return Fault(kind, moment, ("valkey",), draw.choice((0.0, 0.5, 3.0)))
        case "valkey-wipe":
            return Fault(kind, moment, ("valkey",), draw.choice((0.0, 0.5, 2.0)))
        case "disk-full":
            return Fault(kind, moment, (), draw.uniform(1.5, 4))
        case "torn-artifact":
            file = draw.choice(("adapter_model.safetensors", "optimizer.safetensors", "state.json", "manifest"))
            # Without its manifest a version has never been.
            damage = draw.choice(
                ("cut", "empty", "flipped") if file == "manifest" else ("cut", "empty", "flipped", "gone")
            )
            # There must be something to fall back from, and to.
            return Fault(kind, Moment("version", draw.randint(1, 2), draw.choice((0, 20, 300))), (damage, file))
        case "clock-skew":
            shift = draw.choice((-3600, -300, 300, 3600))
            return Fault(kind, moment, (draw.choice(PROCESSES),), draw.uniform(4, 6), shift_seconds=shift)


def _moment(draw: random.Random, num_events: int) -> Moment:
    after: After = draw.choice(("sent", "sent", "accounted", "accounted", "version", "answered"))
    count = {"version": 3, "answered": 2}.get(after, num_events)
    return Moment(after, draw.randint(1, count), draw.choice((0, 0, 5, 20, 100, 400)))
