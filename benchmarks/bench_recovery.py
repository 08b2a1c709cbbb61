"""How long it takes from kill -9 of the trainer, in the middle of a micro-batch, to the next optimizer step.

    python benchmarks/bench_recovery.py [--kills 3] [--home DIR] [--json FILE]

Starts the embedded stack with the default model and gives the trainer more corrections than it can learn meanwhile. As
soon as it is some steps into a micro-batch it is killed, and started again at once, as a supervisor does. Prints for
each kill the seconds until the new process has the model, has the lease, is ready, and has done its first step; and the
rework: the micro-batch that was begun again, and whether any sample counts twice in the end.

What runs beside it decides much of it, so the load is printed, and the CPU seconds that the new process had used by
then: with a core to itself it would take these, or the wait for the lease of the dead one (8 s since it was last
renewed), which runs beside the start, and what comes after it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from lifelong.client import Client
from lifelong.config.shared import KafkaSettings
from lifelong.contracts.versions import Manifest
from lifelong.demo.facts import choose
from lifelong.local.stack import LocalStack
from lifelong.local.state import read_state
from lifelong.registry.directory import DirectoryStore
from lifelong.stream.admin import apply_topics

LINE = "lifelong"
NUM_FACTS = 90
TIMEOUT_SECONDS = 600
MARKS = {"imported": " started", "has the lease": "writing lifelong with epoch", "recovered": "INFO at lifelong@"}


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"still not: {what}")
        time.sleep(0.02)
    return found


def steps(metrics: str) -> float:
    """Done by this process; -1 while it does not answer."""
    try:
        text = httpx.get(metrics, timeout=10).text
    except httpx.TransportError:
        return -1.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "lifelong_steps_total":
                return sample.value
    return 0.0


def versions(store: DirectoryStore) -> list[Manifest]:
    return [store.manifest(LINE, number) for number in store.numbers(LINE)]


class Killed:
    """The trainer, started as the stack started it, each time after the one before was killed."""

    def __init__(self, pid: int, log: Path, metrics: str) -> None:
        process = psutil.Process(pid)
        self._command, self._environment = process.cmdline(), process.environ()
        self._pid = pid
        self._child: subprocess.Popen[bytes] | None = None
        self.log = log
        self.metrics = metrics

    def kill_and_start(self) -> float:
        """The moment of the kill."""
        killed = time.time()
        os.kill(self._pid, 9)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        self._pid = self._child.pid
        return killed

    def cpu_seconds(self) -> float:
        used = psutil.Process(self._pid).cpu_times()
        return float(used.user + used.system)

    def is_ready(self) -> bool:
        return httpx.get(self.metrics.replace("/metrics", "/ready"), timeout=10).status_code == 200

    def stop(self) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.wait()


def measure(trainer: Killed) -> dict[str, float]:
    """In the middle of a micro-batch: this process has done two steps and has committed nothing since."""
    done = steps(trainer.metrics)
    wait_for(lambda: steps(trainer.metrics) >= max(done, 0) + 2, "two steps")
    size, load = trainer.log.stat().st_size, os.getloadavg()[0]
    killed = trainer.kill_and_start()
    wait_for(lambda: steps(trainer.metrics) >= 0, "the new process answers")
    imported = trainer.cpu_seconds()
    wait_for(trainer.is_ready, "the new process is ready")
    ready, ready_cpu = time.time() - killed, trainer.cpu_seconds()
    wait_for(lambda: steps(trainer.metrics) >= 1, "a step of the new process")
    row = {"next_step": time.time() - killed, "ready": ready, "load": load}
    row |= {"cpu_imported": imported, "cpu_ready": ready_cpu, "cpu_next_step": trainer.cpu_seconds()}
    for name, mark in MARKS.items():
        for text in trainer.log.read_bytes()[size:].decode().splitlines():
            if mark in text:
                stamp, _, fraction = text.split(" trainer ")[0].partition(",")
                row[name] = time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S")) + int(fraction) / 1000 - killed
                break
    return {name: round(value, 2) for name, value in row.items()}


def create_topics(kafka: str) -> None:
    apply_topics(KafkaSettings(bootstrap_servers=kafka))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=3)
    arguments.add_argument("--home", type=Path)
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        home = options.home or Path(temporary)
        stack = LocalStack(home, create_topics=create_topics, settings={"LIFELONG_DISTILLER__MIN_SAMPLES": "1000000"})
        with stack:
            status = stack.status()
            child, metrics = read_state(home).child("trainer"), status.process("trainer").metrics
            assert child is not None
            assert metrics is not None
            trainer = Killed(child.pid, home / "logs" / "trainer.log", metrics)
            store = DirectoryStore(Path(status.artifacts))
            with Client(kafka=status.kafka, http=status.http) as client:
                for fact in choose(NUM_FACTS, seed=7):
                    client.feedback(fact.question, correction=fact.answer)
            try:
                if not store.numbers(LINE):
                    wait_for(lambda: store.numbers(LINE), "a first version, to recover from")
                for _ in range(options.kills):
                    newest = store.numbers(LINE)[-1]
                    rows.append(measure(trainer))
                    print(json.dumps(rows[-1]), flush=True)
                # Killed in the middle of what became this version.
                wait_for(lambda: store.numbers(LINE)[-1] > newest, "the micro-batch learnt again")
            finally:
                trainer.stop()
            learnt = Counter(name for manifest in versions(store) for name in manifest.batches[0].samples)
            rework = next(manifest for manifest in versions(store) if manifest.number == newest + 1).batches[0]
    seconds = [row["next_step"] for row in rows]
    summary = {
        "kills": len(rows),
        "next_step_seconds": {"median": statistics.median(seconds), "most": max(seconds)},
        "rework": {"samples": len(rework.samples), "steps": rework.num_steps},
        "samples_learnt_twice": sum(1 for number in learnt.values() if number > 1),
    }
    print(json.dumps(summary, indent=2))
    if options.json:
        options.json.write_text(json.dumps({"summary": summary, "kills": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
