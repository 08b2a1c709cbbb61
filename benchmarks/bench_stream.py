"""What the stream costs beside kafka-python by itself, on the same broker: records a second, written and read.

    python benchmarks/bench_stream.py [--records 50000] [--bytes 300] [--rounds 3]

Starts its own broker. Both sides use the same client with the same settings, in turn, and the best round of each
counts; a ratio of 1 means that the wrapper is free. Broker and client share the machine, so the absolute numbers say
little about any other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from lifelong.config.shared import KafkaSettings
from lifelong.contracts.topics import EVENTS, MAX_MESSAGE_BYTES
from lifelong.local.servers import start_servers
from lifelong.stream.admin import apply_topics
from lifelong.stream.base import Partition
from lifelong.stream.kafka import KafkaGroupSource, KafkaSink, KafkaSource

PARTITIONS = 4
HEADERS = [("ce_id", b"0123456789"), ("ce_type", b"lifelong.document")]


def write_raw(settings: KafkaSettings, values: list[bytes]) -> float:
    producer = KafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        acks="all",
        compression_type="lz4",
        linger_ms=5,
        batch_size=64 * 1024,
        metrics_enabled=False,
    )
    topic = settings.topic_prefix + EVENTS.name
    producer.partitions_for(topic)
    started = time.perf_counter()
    for number, value in enumerate(values):
        producer.send(topic, value=value, headers=HEADERS, partition=number % PARTITIONS)
    producer.flush()
    seconds = time.perf_counter() - started
    producer.close()
    return seconds


def write_ours(settings: KafkaSettings, values: list[bytes]) -> float:
    sink = KafkaSink(settings)
    sink._producer.partitions_for(settings.topic_prefix + EVENTS.name)
    started = time.perf_counter()
    for number, value in enumerate(values):
        sink.send(EVENTS.name, value, headers=HEADERS, partition=number % PARTITIONS)
    sink.flush()
    seconds = time.perf_counter() - started
    sink.close()
    return seconds


def read_raw(settings: KafkaSettings, number: int) -> float:
    consumer = KafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
        metrics_enabled=False,
    )
    partitions = [TopicPartition(settings.topic_prefix + EVENTS.name, n) for n in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    started = time.perf_counter()
    seen = 0
    while seen < number:
        seen += sum(len(records) for records in consumer.poll(1000, max_records=500).values())
    seconds = time.perf_counter() - started
    consumer.close()
    return seconds


def read_ours(settings: KafkaSettings, number: int) -> float:
    source = KafkaSource(settings, [EVENTS.name])
    source.seek({})
    started = time.perf_counter()
    seen = 0
    while seen < number:
        seen += len(source.poll(1.0, 500))
    seconds = time.perf_counter() - started
    source.close()
    return seconds


def read_committing(settings: KafkaSettings, number: int) -> float:
    """As the collector does: the position is committed after every poll. From the first records on, without joining."""
    source = KafkaGroupSource(settings, [EVENTS.name], uuid.uuid4().hex)
    started, seen = 0.0, 0
    while seen < number:
        records = source.poll(1.0, 500)
        started = started or (time.perf_counter() if records else 0.0)
        seen += len(records)
        source.commit({Partition(r.topic, r.partition): r.offset + 1 for r in records})
    seconds = time.perf_counter() - started
    source.close()
    return seconds


def latency_ms(settings: KafkaSettings, number: int) -> tuple[float, float]:
    """Sent, flushed and read, one record at a time: p50 and p99."""
    sink, source = KafkaSink(settings), KafkaSource(settings, [EVENTS.name])
    source.seek(source.end_positions())
    source.poll(0.2)
    took = []
    for n in range(number):
        started = time.perf_counter()
        sink.send(EVENTS.name, b"%d" % n, partition=n % PARTITIONS)
        sink.flush()
        while not source.poll(1.0):
            pass
        took.append((time.perf_counter() - started) * 1000)
    sink.close()
    source.close()
    took.sort()
    return took[len(took) // 2], took[int(len(took) * 0.99)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--records", type=int, default=50_000)
    arguments.add_argument("--bytes", type=int, default=300)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--json", type=Path, help="write the numbers there as well")
    given = arguments.parse_args()
    # Half of each can be packed, as with text.
    draw = random.Random(1)
    values = [draw.randbytes(given.bytes // 2).hex().encode() for _ in range(given.records)]
    measures: dict[str, Callable[[KafkaSettings], float]] = {
        "write, kafka-python": lambda settings: write_raw(settings, values),
        "write, ours": lambda settings: write_ours(settings, values),
        "read, kafka-python": lambda settings: read_raw(settings, given.records),
        "read, ours": lambda settings: read_ours(settings, given.records),
        "read, ours, committing": lambda settings: read_committing(settings, given.records),
    }
    with tempfile.TemporaryDirectory() as home, start_servers(Path(home)) as servers:
        best = dict.fromkeys(measures, float("inf"))
        for _ in range(given.rounds):
            target = fresh(servers.kafka)
            write_ours(target, values)
            for name, measure in measures.items():
                settings = fresh(servers.kafka) if name.startswith("write") else target
                best[name] = min(best[name], measure(settings))
        p50, p99 = latency_ms(fresh(servers.kafka), 300)
    rates = {name: given.records / seconds for name, seconds in best.items()}
    print(f"{platform.machine()}, {os.cpu_count()} cores, {given.records} records of {given.bytes} bytes")
    for name, rate in rates.items():
        print(f"{name:24} {rate:10,.0f} records/s")
    ratios = {kind: rates[f"{kind}, ours"] / rates[f"{kind}, kafka-python"] for kind in ("write", "read")}
    for kind, ratio in ratios.items():
        print(f"{kind}, ours to kafka-python {ratio:8.2f}")
    print(f"one record, sent, acknowledged and read: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    if given.json:
        given.json.write_text(json.dumps({"rates": rates, "ratios": ratios, "p50_ms": p50, "p99_ms": p99}, indent=2))


def fresh(kafka: str) -> KafkaSettings:
    settings = KafkaSettings(bootstrap_servers=kafka, topic_prefix=f"{uuid.uuid4().hex[:8]}.", partitions=PARTITIONS)
    apply_topics(settings)
    return settings


if __name__ == "__main__":
    main()
