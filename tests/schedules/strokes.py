"""How each fault is done to a world, and undone."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.schedules.faults import Fault
from tests.schedules.watch import LINE, Watch
from tests.schedules.world import SECOND_COLLECTOR, STANDBY, World

from lifelong.registry import layout
from lifelong.registry.registry import is_accepted

Undo = Callable[[], None] | None


def prepare(fault: Fault, world: World) -> None:
    """Whoever is stalled for long has somebody who takes over."""
    if fault.kind == "stall-trainer":
        world.want(STANDBY)
    elif fault.kind == "stall-member" and "collector" in fault.targets:
        world.want(SECOND_COLLECTOR)


def strike(fault: Fault, world: World, watch: Watch) -> tuple[str, Undo]:
    """What was hit, in a word, and what ends it after its seconds. ``missed``: there was nothing to be hit."""
    match fault.kind:
        case "kill" | "kill-two" | "kill-in-commit":
            return _kill(fault, world)
        case "freeze" | "stall-trainer" | "stall-member":
            pid = world.freeze(fault.targets[0])
            return ("hit", lambda: world.thaw(pid)) if pid is not None else ("missed", None)
        case "kafka-restart" | "valkey-restart" | "valkey-wipe":
            return _restart(fault, world, watch)
        case "disk-full":
            if not world.disk.is_apart:
                return "left-out", None
            world.disk.fill()
            return "hit", world.disk.free
        case "torn-artifact":
            return _tear(fault, world, watch)
        case "clock-skew":
            return _shift(fault, world)


def _kill(fault: Fault, world: World) -> tuple[str, Undo]:
    there = [name for name in fault.targets if world.pid(name) is not None]
    world.kill(*there)
    return ("hit" if there else "missed"), None


def _restart(fault: Fault, world: World, watch: Watch) -> tuple[str, Undo]:
    (name,) = fault.targets
    if not world.servers_run():
        return "missed", None

    def destroy() -> None:
        world.kill_server(name)
        if fault.kind == "valkey-wipe":
            world.wipe_valkey()

    if fault.kind == "valkey-wipe":
        watch.pointers.lose(destroy)
    else:
        destroy()
    return "hit", lambda: world.start_server(name)


def _tear(fault: Fault, world: World, watch: Watch) -> tuple[str, Undo]:
    """Of the newest version, while no trainer runs."""
    damage, name = fault.targets
    world.kill("trainer", STANDBY)
    while world.pid("trainer") is not None or world.pid(STANDBY) is not None:
        time.sleep(0.002)
    newest = watch.store.newest()
    if newest is None:
        return "missed", None
    watch.pointers.damaged.add((LINE, newest.number))
    path = world.artifacts / newest.folder / name
    if name == "manifest":
        path = world.artifacts / layout.manifests_path(LINE) / layout.manifest_name(newest.number)
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
        case "flipped":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return f"tore-{newest.number}", None


def _shift(fault: Fault, world: World) -> tuple[str, Undo]:
    (name,) = fault.targets
    world.kill(name)
    world.want(name, fault.shift_seconds)

    def back() -> None:
        world.kill(name)
        world.want(name)

    return "hit", back


def landing(watch: Watch) -> str:
    """How far a commit got that was cut off."""
    numbers = watch.store.store.numbers(LINE)
    newest = numbers[-1] if numbers else 0
    if any((layout.folder_number(folder) or 0) > newest for folder in watch.store.store.folders(LINE)):
        return "no-manifest"
    state, manifest = watch.pointers.now(LINE), watch.store.newest()
    accepted = manifest is not None and is_accepted(manifest)
    return "no-pointer" if accepted and (state is None or state.candidate < newest) else "after"
