"""What the servers really say when they cannot start."""

from __future__ import annotations

import pytest

from lifelong.local import kafka, valkey


@pytest.mark.parametrize(
    ("says", "mend"),
    [
        ("Caused by: java.io.IOException: No space left on device\n\t... 18 more", "make room"),
        ("org.apache.kafka.common.KafkaException: Socket server failed to bind to 127.0.0.1:9092: "
         "Address already in use.", "another port"),
        ("Failed to acquire lock on file .lock in /data. A Kafka instance in another process or thread is using this "
         "directory.", "stop it"),
        ("java.lang.UnsupportedClassVersionError: kafka/Kafka has been compiled by a more recent version of the Java "
         "Runtime", "JAVA_HOME"),
    ],
)  # fmt: skip
def test_kafka(says: str, mend: str) -> None:
    assert mend in (kafka.diagnose(f"before\n{says}\nafter") or "")


@pytest.mark.parametrize(
    ("says", "mend"),
    [
        ("# Error trying to write the temporary AOF manifest file temp-a.manifest: No space left on device",
         "make room"),
        ("# Warning: Could not create server TCP listening socket 127.0.0.1:6379: bind: Address already in use",
         "another port"),
        ("# Bad file format reading the append only file appendonly.aof.1.incr.aof: make a backup of your AOF file",
         "valkey-check-aof"),
    ],
)  # fmt: skip
def test_valkey(says: str, mend: str) -> None:
    assert mend in (valkey.diagnose(f"before\n{says}\nafter") or "")


def test_what_is_not_known_is_not_guessed() -> None:
    assert kafka.diagnose("java.lang.NullPointerException") is None
    assert valkey.diagnose("Out Of Memory allocating 12 bytes!") is None
