"""How many events a second one collector works off, beside a loop that only reads and decodes them.

    python benchmarks/bench_collector.py [--events 10000] [--rounds 3] [--json FILE]

Starts a Kafka and a Valkey of its own, publishes a mixture of events (40 % interactions, 20 % facts, 20 % dialogues,
10 % corrections, 10 % documents of 100 to 300 words) once, and in every round reads all of them twice: with a plain
loop that decodes the JSON, and with the collector as it runs, with cleaning, masking, duplicates of three kinds, memory
and samples written, positions committed. Prints the median of the rounds and the ratio. Broker, Valkey and collector
share the cores of one machine, so the ratio says more than the numbers.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
import typing
from pathlib import Path

import msgspec

from lifelong.collector.app import connect
from lifelong.collector.config import MaskKind, Settings
from lifelong.config.shared import KafkaSettings, LineSettings, LogSettings, RedisSettings
from lifelong.contracts import topics
from lifelong.contracts.codec import encode_event, type_name
from lifelong.contracts.events import Dialogue, Document, Event, EventData, Fact, Feedback, Interaction, Message
from lifelong.local.servers import start_servers
from lifelong.runtime.health import Health
from lifelong.runtime.logs import set_up_logging
from lifelong.runtime.metrics import Metrics
from lifelong.stream.admin import apply_topics
from lifelong.stream.kafka import KafkaGroupSource, KafkaSink

EVENTS = topics.EVENTS.name


def text(choose: random.Random, num_words: int) -> str:
    words = [f"word{int(choose.paretovariate(0.7)) % 20_000}" for _ in range(num_words)]
    return ". ".join(" ".join(words[i : i + 12]).capitalize() for i in range(0, num_words, 12)) + "."


def some_data(choose: random.Random, number: int) -> EventData:
    question = Message(role="user", content=text(choose, 15))
    kind = choose.random()
    if kind < 0.4:
        return Interaction(
            user=f"u{choose.randrange(1000)}", item=f"i{choose.randrange(5000)}", item_text=text(choose, 6)
        )
    if kind < 0.6:
        return Fact(subject=f"thing {number}", relation="colour", object=text(choose, 3))
    if kind < 0.8:
        return Dialogue(messages=(question, Message(role="assistant", content=text(choose, 40))))
    if kind < 0.9:
        return Feedback(messages=(question,), answer=text(choose, 20), correction=text(choose, 20), rating=-1.0)
    return Document(text=text(choose, choose.randrange(100, 300)), title=text(choose, 4))


def publish(kafka: KafkaSettings, num_events: int) -> int:
    """The number of bytes."""
    choose, sink, num_bytes = random.Random(0), KafkaSink(kafka), 0
    for number in range(num_events):
        data = some_data(choose, number)
        value, headers = encode_event(
            Event(id=f"e{number}", source="/bench", type=type_name(data), data=data, time=time.time())
        )
        sink.send(EVENTS, value, headers=headers, partition=number % kafka.partitions)
        num_bytes += len(value)
    sink.flush()
    sink.close()
    return num_bytes


def read_only(kafka: KafkaSettings, group: str, num_events: int) -> float:
    source = KafkaGroupSource(kafka, [EVENTS], group)
    done, started = 0, 0.0
    while done < num_events:
        records = source.poll(1.0)
        # Joining the group is not what is measured.
        started = started or time.perf_counter()
        for record in records:
            assert record.value is not None
            msgspec.json.decode(record.value)
        done += len(records)
    seconds = time.perf_counter() - started
    source.close()
    return seconds


def collect(settings: Settings, num_events: int) -> float:
    app, never = connect(settings, Metrics("collector"), Health("collector")), threading.Event()
    done, started = 0, 0.0
    while done < num_events:
        before = time.perf_counter()
        num_records = app.turn(never)
        if num_records and not started:
            started = before
        done += num_records
    seconds = time.perf_counter() - started
    app.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mask-all", action="store_true", help="mask every kind, instead of the default two")
    parser.add_argument("--json", type=Path, help="write the results here too")
    arguments = parser.parse_args()
    set_up_logging("bench", msgspec.convert({"level": "WARNING"}, LogSettings))
    plain, collected = [], []
    with tempfile.TemporaryDirectory(prefix="bench-collector-") as home, start_servers(Path(home)) as servers:
        kafka = KafkaSettings(bootstrap_servers=servers.kafka)
        apply_topics(kafka)
        num_bytes = publish(kafka, arguments.events)
        for number in range(arguments.rounds):
            settings = Settings(
                line=LineSettings(name=f"round-{number}"),
                kafka=kafka,
                redis=RedisSettings(url=servers.redis),
            )
            if arguments.mask_all:
                collector = msgspec.structs.replace(settings.collector, mask=typing.get_args(MaskKind))
                settings = msgspec.structs.replace(settings, collector=collector)
            plain.append(arguments.events / read_only(kafka, f"plain-{number}", arguments.events))
            collected.append(arguments.events / collect(settings, arguments.events))
            print(f"round {number + 1}: read {plain[-1]:,.0f}/s, collected {collected[-1]:,.0f}/s", flush=True)
    result = {
        "events": arguments.events,
        "mean_event_bytes": round(num_bytes / arguments.events),
        "read_events_per_second": round(statistics.median(plain)),
        "collected_events_per_second": round(statistics.median(collected)),
        "ratio": round(statistics.median(collected) / statistics.median(plain), 3),
    }
    for name, value in result.items():
        print(f"{name:30} {value:>12,}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
