"""What all tests may use: real servers, started once, and a namespace for each test on them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import torch

from lifelong.config.shared import KafkaSettings
from lifelong.local.servers import Servers, start_servers
from lifelong.model import base
from lifelong.stream.admin import apply_topics
from lifelong.trainer import precision


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", help="where all models are, such as cuda, instead of where each test would have them")


def pytest_configure(config: pytest.Config) -> None:
    """Models in processes that a test starts are not reached by this."""
    if name := config.getoption("--device"):
        torch.empty(0, device=name)  # there, or an error that says what is missing
        base.resolve_device = precision.resolve_device = lambda settings: torch.device(name)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A real Kafka and a real Valkey, for the whole session."""
    with start_servers(tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture(scope="session")
def kafka_servers(servers: Servers) -> str:
    """Bootstrap servers, ``host:port``. Use ``kafka_settings`` for topics of your own."""
    return servers.kafka


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> str:
    """Shared by all tests: use a line of your own (``fresh_line``)."""
    return servers.redis


@pytest.fixture
def fresh_line() -> str:
    """A line that nobody else uses, for Redis keys, artifacts and group ids."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def kafka_settings(kafka_servers: str, fresh_line: str) -> KafkaSettings:
    """Settings under which all topics exist and are this test's own."""
    settings = KafkaSettings(bootstrap_servers=kafka_servers, topic_prefix=f"{fresh_line}.", partitions=2)
    apply_topics(settings)
    return settings
