"""Members of a group get their partitions however briefly they poll."""

from __future__ import annotations

import time

import pytest

from lifelong.config.shared import KafkaSettings
from lifelong.contracts.topics import EVENTS
from lifelong.stream.kafka import KafkaGroupSource

pytestmark = pytest.mark.kafka

PATIENCE_SECONDS = 30
SETTLED_SECONDS = 1.0


@pytest.mark.parametrize("poll_seconds", [0.002, 0.01])
def test_a_poll_that_ends_in_the_middle_of_a_rebalance_loses_no_partitions(
    kafka_settings: KafkaSettings, poll_seconds: float
) -> None:
    """Without our part in it, kafka-python 3.0.12 stays without partitions for ever in most of these rounds."""
    for _ in range(3):
        source = KafkaGroupSource(kafka_settings, [EVENTS.name], "brief")
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            settled = None
            # The group is shared out twice: again as soon as the client knows the topic. It is the second that matters.
            while settled is None or time.monotonic() - settled < SETTLED_SECONDS:
                assert time.monotonic() < deadline, "never got its partitions"
                source.poll(poll_seconds)
                if len(source.assigned()) < kafka_settings.partitions:
                    settled = None
                elif settled is None:
                    settled = time.monotonic()
        finally:
            source.close()
