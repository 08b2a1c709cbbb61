"""The four processes with a tiny model: every kind of event through, everything seen by a real Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from tests.e2e.prometheus_check import check_queries

from lifelong.client import Client
from lifelong.config.shared import KafkaSettings
from lifelong.contracts.events import (
    Dialogue,
    Document,
    Fact,
    Feedback,
    Forget,
    Interaction,
    Message,
    Observation,
    Preference,
)
from lifelong.local.stack import LocalStack
from lifelong.local.status import StackStatus
from lifelong.model.tiny import tiny_random_model
from lifelong.stream.admin import apply_topics

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

QUESTION = (Message("user", "Where is the key?"),)


def _create_topics(kafka: str) -> None:
    apply_topics(KafkaSettings(bootstrap_servers=kafka))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackStatus]:
    folder = tmp_path_factory.mktemp("stack")
    tiny_random_model(0, folder / "model")
    settings = {
        "LIFELONG_MODEL__NAME": str(folder / "model"),
        "LIFELONG_MEMORY__EMBEDDER": "hash",
        "LIFELONG_DISTILLER__IDLE_SECONDS": "1",
        # Of seven samples one would be kept apart, and the chance of that one would decide on the student.
        "LIFELONG_DISTILLER__JUDGED_RATIO": "0",
    }
    running = LocalStack(
        folder / "home",
        settings=settings,
        create_topics=_create_topics,
    )
    with running:
        yield running.status()


@pytest.fixture(scope="module")
def client(stack: StackStatus) -> Iterator[Client]:
    with Client(kafka=stack.kafka, http=stack.http) as client:
        yield client


def _until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s until {what}"
        time.sleep(0.1)


def test_events_of_every_kind_become_a_version_that_answers(stack: StackStatus, client: Client) -> None:
    assert client.ask("Where is the key?", memory=False).version == "lifelong@0"
    guess = client.ask("#ff0000", memory=False, max_tokens=4)
    client.publish(
        Document(text="The key of the house is always under the mat beside the door."),
        Dialogue(messages=(*QUESTION, Message("assistant", "Under the mat."))),
        Feedback(messages=QUESTION, correction="Under the mat."),
        Preference(messages=QUESTION, chosen="Under the mat.", rejected="I do not know."),
        Interaction(user="ann", item="film-7", item_text="a comedy", action="liked"),
        Observation(task="colour", input="#ff0000", label="red", observation_id=guess.output_id),
        Fact(subject="house", relation="key", object="under the mat"),
    )
    _until(lambda: client.health()["version"] != "lifelong@0", "a version has learned")
    answer = client.ask("Where is the key?")
    assert answer.version != "lifelong@0"
    assert answer.memories


def test_the_label_was_held_against_the_answer(stack: StackStatus, client: Client) -> None:
    (url,) = (process.metrics for process in stack.processes if process.name == "collector")
    text = httpx.get(url if "://" in url else f"http://{url}/metrics").text
    assert 'lifelong_task_answers_total{result="wrong",task="colour"} 1.0' in text, "a model of random weights"


def test_the_student_answers_by_its_name(stack: StackStatus, client: Client) -> None:
    _until(lambda: client.health()["student"] is not None, "there is a student")
    answer = client.ask("Where is the key?", model="lifelong-student", memory=False)
    assert answer.version.startswith("lifelong-student@")


def test_what_is_forgotten_is_not_remembered(stack: StackStatus, client: Client) -> None:
    data = Feedback(messages=(Message("user", "What is the code?"),), correction="1234")
    (event_id,) = client.publish(data)

    def remembered() -> bool:
        return any(memory.event_id == event_id for memory in client.ask("What is the code?").memories)

    _until(remembered, "it is remembered")
    client.publish(Forget(event_ids=(event_id,)))
    _until(lambda: not remembered(), "it is forgotten")


def test_every_shipped_query_finds_its_data_in_a_real_prometheus(stack: StackStatus, client: Client) -> None:
    for number in range(5):
        client.ask(f"Question {number}?")
    client.feedback("Where is the lamp?", correction="On the table.")
    targets = {process.name: process.metrics for process in stack.processes if process.metrics}
    assert set(targets) == {"collector", "trainer", "distiller", "inference"}
    report = check_queries(targets)
    assert not report.unexplained, report.unexplained
    assert report.answered
