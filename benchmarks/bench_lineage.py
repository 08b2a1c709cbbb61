"""How long lineage takes on a line of many versions: seconds for each question, on a broker and a store of its own.

    python benchmarks/bench_lineage.py [--versions 1000] [--batch 20]

The versions are made by hand (manifests without weights), the log is real: a record for each event, in four
partitions. Asked is what `lifelong lineage` asks; to start Python and to import it comes on top (`--help` tells).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from lifelong.config.shared import KafkaSettings
from lifelong.contracts import topics
from lifelong.contracts.codec import encode
from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample, SampleRecord
from lifelong.contracts.versions import Batch, Manifest
from lifelong.lineage import Place, of_event, of_version
from lifelong.local.servers import start_servers
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.local import LocalPointers
from lifelong.registry.registry import Registry
from lifelong.runtime.clock import SystemClock
from lifelong.stream.admin import apply_topics
from lifelong.stream.kafka import KafkaSink, KafkaSource

PARTITIONS = 4
LINE = "bench"


def fill(kafka: KafkaSettings, registry: Registry, num_versions: int, batch: int) -> None:
    sink = KafkaSink(kafka)
    offsets = dict.fromkeys(range(PARTITIONS), 0)
    for number in range(1, num_versions + 1):
        ids = []
        for index in range(batch):
            partition = (number + index) % PARTITIONS
            offset = offsets[partition]
            name = f"{partition}-{offset}"
            messages = (Message("user", f"What is {name}?"), Message("assistant", f"It is {name}, and has been so."))
            sample = Sample(
                f"{name}-0", f"event-{name}", 1.7e9, "fact", messages, until_known=True, user=f"u{offset % 7}"
            )
            record = SampleRecord(
                topics.EVENTS.name, partition, offset, offset + 1, "sample", (sample,), event_id=f"event-{name}"
            )
            sink.send(topics.SAMPLES.name, encode(record), partition=partition)
            offsets[partition] += 1
            ids.append(sample.id)
        registry.store.commit(
            Manifest(
                line=LINE,
                number=number,
                parent=number - 1,
                kind="active",
                base="none",
                base_sha256="",
                epoch=1,
                created=1.7e9,
                weights_sha256="",
                files={},
                folder="",
                watermarks=dict(offsets),
                positions=dict(offsets),
                counts={"trained": number * batch},
                batches=(Batch(tuple(ids)),),
            )
        )
    sink.flush()
    sink.close()


def seconds(action: Callable[[], object], rounds: int = 5) -> dict[str, float]:
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return {"median": round(statistics.median(found), 3), "max": round(max(found), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, start_servers(Path(folder) / "servers") as servers:
        kafka = KafkaSettings(
            bootstrap_servers=servers.kafka, topic_prefix=f"{uuid.uuid4().hex}.", partitions=PARTITIONS
        )
        apply_topics(kafka)
        clock = SystemClock()
        registry = Registry(DirectoryStore(Path(folder) / "artifacts"), LocalPointers(clock), clock)
        fill(kafka, registry, arguments.versions, arguments.batch)
        newest = registry.newest(LINE)
        assert newest is not None
        last = newest.batches[0].samples[-1]
        place = Place(*map(int, last.split("-")[:2]))
        middle = Place(1, newest.watermarks[1] // 2)

        def open_source() -> KafkaSource:
            return KafkaSource(kafka, [topics.SAMPLES.name])

        result = {
            "versions": arguments.versions,
            "events": arguments.versions * arguments.batch,
            "load": round(os.getloadavg()[0], 1),
            "a version, its last 10 micro-batches": seconds(lambda: of_version(registry, newest, 10)),
            "a version, all its micro-batches": seconds(lambda: of_version(registry, newest, arguments.versions)),
            "an event by its place": seconds(lambda: of_event(registry, newest, open_source, place=middle)),
            "the newest event by its id": seconds(
                lambda: of_event(registry, newest, open_source, event_id=f"event-{place.partition}-{place.offset}")
            ),
            "to start the command": seconds(
                lambda: subprocess.run(
                    [sys.executable, "-m", "lifelong.cli", "lineage", "--help"], stdout=-3, check=True
                )
            ),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
