"""The manifests for Kubernetes: consistent among themselves, with the processes and with the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.deploy.settings_of import loaded, process_of

K8S = Path(__file__).parents[3] / "deploy" / "k8s"
KUSTOMIZATION = yaml.safe_load((K8S / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    document
    for path in sorted(K8S.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text())
]
PROCESSES = ("collector", "trainer", "distiller", "inference")
ENVIRONMENT = next(o for o in OBJECTS if o["kind"] == "ConfigMap")["data"]


def of_kind(*kinds: str) -> dict[str, Any]:
    return {o["metadata"]["name"]: o for o in OBJECTS if o["kind"] in kinds}


WORK = of_kind("Deployment", "Job")
each = pytest.mark.parametrize("name", WORK)


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = WORK[name]["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    (only,) = pod(name)["containers"]
    found: dict[str, Any] = only
    return found


def test_every_file_is_applied() -> None:
    assert set(KUSTOMIZATION["resources"]) == {path.name for path in K8S.glob("*.yaml")} - {"kustomization.yaml"}


def test_the_four_processes_and_the_topics() -> None:
    assert set(of_kind("Deployment")) == set(PROCESSES) == set(of_kind("Service"))
    assert set(of_kind("Job")) == {"topics"}


@each
def test_settings_are_known_to_the_process(name: str) -> None:
    own = {variable["name"]: variable["value"] for variable in container(name).get("env", [])}
    assert container(name)["envFrom"] == [{"configMapRef": {"name": "lifelong"}}]
    process = process_of(container(name)["command"])
    assert process == ("cli" if name == "topics" else name)
    assert loaded(process, {**ENVIRONMENT, **own})


@each
def test_nobody_has_more_rights_than_needed(name: str) -> None:
    assert pod(name)["securityContext"]["runAsNonRoot"] is True
    assert pod(name)["securityContext"]["runAsUser"] == 10001
    assert pod(name)["automountServiceAccountToken"] is False
    assert container(name)["securityContext"]["allowPrivilegeEscalation"] is False


@each
def test_kubernetes_adds_no_variables_of_its_own(name: str) -> None:
    """A service named ``lifelong-x`` would become LIFELONG_X_SERVICE_HOST, which the settings refuse."""
    assert pod(name)["enableServiceLinks"] is False


@each
def test_the_image_has_an_exact_tag(name: str) -> None:
    (image,) = KUSTOMIZATION["images"]
    assert container(name)["image"] == f"{image['name']}:{image['newTag']}"


@pytest.mark.parametrize("name", PROCESSES)
def test_ports_fit_together(name: str) -> None:
    (port,) = container(name)["ports"]
    (service,) = of_kind("Service")[name]["spec"]["ports"]
    setting = "LIFELONG_INFERENCE__PORT" if name == "inference" else "LIFELONG_METRICS__PORT"
    assert str(port["containerPort"]) == ENVIRONMENT[setting] == str(service["port"])
    assert service["targetPort"] == port["name"]
    template = WORK[name]["spec"]["template"]["metadata"]
    assert template["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    assert (
        of_kind("Service")[name]["spec"]["selector"]
        == template["labels"]
        == WORK[name]["spec"]["selector"]["matchLabels"]
    )
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container(name)[probe]["httpGet"]["port"] == port["name"]
    assert container(name)["readinessProbe"]["httpGet"]["path"] == "/ready"
    # /health of those three fails for as long as Kafka or Redis is away, which is no reason to start them again.
    alive = "/health" if name == "inference" else "/metrics"
    assert container(name)["livenessProbe"]["httpGet"]["path"] == alive
    assert container(name)["startupProbe"]["httpGet"]["path"] == alive


def test_there_is_one_writer_for_each_line() -> None:
    for name in ("trainer", "distiller"):
        assert WORK[name]["spec"]["replicas"] == 1
        assert WORK[name]["spec"]["strategy"] == {"type": "Recreate"}


def test_who_shares_artifacts() -> None:
    (claim,) = of_kind("PersistentVolumeClaim").values()
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    mounting = {
        name
        for name in WORK
        for mount in container(name).get("volumeMounts", [])
        if mount["mountPath"] == ENVIRONMENT["LIFELONG_ARTIFACTS__URL"]
    }
    assert mounting == {"trainer", "distiller", "inference"}
