"""One seed: a run, what it left behind checked, and the run again in which nothing fails."""

from __future__ import annotations

import secrets
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import msgspec
import torch
from tests.simulation import model
from tests.simulation.config import RunConfig, make_config
from tests.simulation.events import make_workload
from tests.simulation.fold import fold_weights
from tests.simulation.invariants import check
from tests.simulation.schedule import Schedule, Threading
from tests.simulation.world import LINE, World

import lifelong.inference.handler
import lifelong.inference.outputs
import lifelong.inference.topics
import lifelong.inference.versions
import lifelong.registry.writer
from lifelong.learning.optimizers import AdamW
from lifelong.model.learner import AdapterLearner

_THREADED = (
    lifelong.inference.handler,
    lifelong.inference.outputs,
    lifelong.inference.topics,
    lifelong.inference.versions,
    lifelong.registry.writer,
)


class Result(msgspec.Struct):
    seed: int
    problems: list[str]
    trace: str
    """Hash of all that happened, in order."""
    hits: Counter[tuple[str, str]]
    num_points: int
    num_versions: int


def run_seed(seed: int) -> Result:
    config = make_config(seed)
    calm = None
    if config.has_calm_twin:
        twin = _run(config.calm)
        if twin.problems:
            return Result(seed, [f"undisturbed: {problem}" for problem in twin.problems], "", Counter(), 0, 0)
        calm = _newest_weights(twin)
    world = _run(config)
    problems = world.problems
    if not problems:
        evidence = world.evidence()
        with _quick():
            replace = types.SimpleNamespace(retrained=fold_weights(config, evidence), calm=calm)
        object.__setattr__(evidence, "retrained_sha256", replace.retrained)
        object.__setattr__(evidence, "calm_sha256", replace.calm)
        problems += check(evidence)
    manifests = world.manifests(LINE)
    trace = world.schedule.trace
    for manifest in manifests.values():
        trace.update(manifest.weights_sha256.encode())
    return Result(seed, problems, trace.hexdigest(), world.faults.hits, world.schedule.num_points, len(manifests))


def _run(config: RunConfig) -> World:
    workload = make_workload(
        config.seed,
        config.num_partitions,
        with_forgets=config.with_forgets,
        with_requests=bool(config.num_servers),
    )
    world = World(config, workload)
    with simulated(world.schedule):
        world.run()
    return world


def _newest_weights(world: World) -> str | None:
    manifests = world.manifests(LINE)
    return manifests[max(manifests)].weights_sha256 if manifests else None


@contextmanager
def simulated(schedule: Schedule) -> Iterator[None]:
    """Threads, time and randomness of the real code are those of the schedule."""
    fake = Threading(schedule)
    step = AdamW.step

    def stepped(optimizer: AdamW, num_tokens: int) -> None:
        schedule.point("step")
        step(optimizer, num_tokens)

    def token(num_bytes: int = 32) -> str:
        return f"{schedule.random.getrandbits(8 * num_bytes):0{2 * num_bytes}x}"

    deterministic = torch.are_deterministic_algorithms_enabled()
    with ExitStack() as stack:
        for module in _THREADED:
            stack.enter_context(mock.patch.object(module, "threading", fake))
        clock = types.SimpleNamespace(monotonic=lambda: schedule.now)
        stack.enter_context(mock.patch.object(lifelong.inference.outputs, "time", clock))
        stack.enter_context(mock.patch.object(secrets, "token_hex", token))
        stack.enter_context(mock.patch.object(AdamW, "step", stepped))
        stack.enter_context(_quick())
        stack.callback(torch.use_deterministic_algorithms, deterministic)
        yield


@contextmanager
def _quick() -> Iterator[None]:
    """What a learner finds out at its start is known: it is the same each time."""
    with (
        mock.patch.object(AdapterLearner, "_packing_error", model.packing_error),
        mock.patch.object(AdapterLearner, "base_answers", model.base_answers),
        mock.patch.object(AdapterLearner, "base_texts", model.base_texts),
    ):
        yield
