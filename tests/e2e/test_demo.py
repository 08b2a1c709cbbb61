"""The demonstration itself, with every process killed once on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from lifelong.demo.summary import Summary
from lifelong.local.stack import LocalStack
from lifelong.registry.artifacts import DirectoryStore

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.timeout(1500)]

_STEP_SECONDS = 600


class Demo:
    def __init__(self, folder: Path) -> None:
        self.home = folder / "demo"
        self.summary_file = folder / "summary.json"
        self._log = folder / "demo.log"
        command = ["demo", "--once", "--home", str(self.home), "--summary", str(self.summary_file)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lifelong.cli", *command], stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _STEP_SECONDS
        while not condition():
            assert self.process.poll() is None, f"the demo has ended before {what}:\n{self.said}"
            assert time.monotonic() < deadline, f"waited too long for {what}:\n{self.said}"
            time.sleep(0.05)

    def kill_and_start_again(self, process: str) -> None:
        pid = LocalStack(self.home).status().process(process).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        subprocess.run(
            [sys.executable, "-m", "lifelong.cli", "up", "--home", str(self.home)],
            check=True,
            capture_output=True,
            timeout=_STEP_SECONDS,
        )


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    yield running
    if running.process.poll() is None:
        running.process.send_signal(signal.SIGINT)
        running.process.wait(60)
    LocalStack(running.home).down()


def test_it_ends_well_though_every_process_is_killed_once(demo: Demo) -> None:
    demo.wait_for("the stream", lambda: "2. What is published" in demo.said)
    demo.kill_and_start_again("collector")
    demo.wait_for("learning", lambda: "4. The trainer learns" in demo.said)
    demo.kill_and_start_again("trainer")
    demo.kill_and_start_again("distiller")
    demo.wait_for("answers", lambda: "5. What the model answers now" in demo.said)
    demo.kill_and_start_again("inference")
    assert demo.process.wait(_STEP_SECONDS) == 0, demo.said

    summary = msgspec.json.decode(demo.summary_file.read_bytes(), type=Summary)
    assert summary.learning_was_seen()
    assert summary.dead_letters == {"not-utf8": 1}
    assert summary.weights_before != summary.weights_after
    assert summary.num_from_memory > 0

    # Nothing was counted twice, and nothing was lost.
    store = DirectoryStore(demo.home / "artifacts")
    manifests = [store.manifest("lifelong", number) for number in store.numbers("lifelong")]
    taken = Counter(sample for m in manifests for batch in m.batches for sample in (*batch.samples, *batch.held_out))
    assert set(taken.values()) == {1}
    assert len(taken) == summary.events_published

    assert _left_over(demo.home) == []


def _left_over(home: Path) -> list[str]:
    """Processes that know of the demo's folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "environ"]):
        text = " ".join(process.info["cmdline"] or []) + " ".join((process.info["environ"] or {}).values())
        if str(home) in text and process.pid != os.getpid():
            found.append(f"{process.pid} {process.info['cmdline']}")
    return found
