from __future__ import annotations

import re

import msgspec

from lifelong.local.kafka_jars import KAFKA, LOCK, LOGGING, read_lock


def test_every_jar_is_pinned_and_no_server_named() -> None:
    lock = read_lock()
    assert lock.requests == (KAFKA, LOGGING)
    assert len(lock.jar) > 40
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) for jar in lock.jar)
    assert len({jar.file_name for jar in lock.jar}) == len(lock.jar)
    assert "://" not in LOCK.read_text()


def test_the_broker_is_of_one_release() -> None:
    """A newer logging binding once pulled the clients back to another release: the broker did not start."""
    of_kafka = [jar for jar in read_lock().jar if jar.group == "org.apache.kafka"]
    assert {jar.version for jar in of_kafka} == {KAFKA.rpartition(":")[2]}
    assert {"kafka_2.13", "kafka-clients", "kafka-server"} <= {jar.artifact for jar in of_kafka}


def test_another_lock_has_another_folder() -> None:
    lock = read_lock()
    assert lock.name.startswith("kafka-4.4.0-")
    assert msgspec.structs.replace(lock, jar=lock.jar[1:]).name != lock.name
