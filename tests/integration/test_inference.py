"""The inference process on a real Kafka and a real Valkey: asked over HTTP and the topic, killed, cut off, replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from lifelong.config.shared import KafkaSettings
from lifelong.contracts import topics
from lifelong.contracts.codec import decode, decode_event, encode
from lifelong.contracts.events import Feedback, Message
from lifelong.contracts.requests import Output, Request
from lifelong.contracts.versions import Manifest, Verdict
from lifelong.local.ports import free_port
from lifelong.local.servers import Servers
from lifelong.memory.base import MemoryEntry
from lifelong.memory.redis import RedisMemory
from lifelong.model.adapter import adapter_files, adapter_state, add_adapter, load_adapter_state
from lifelong.model.base import view_of
from lifelong.model.hashing import combined_sha256, tensor_hashes
from lifelong.model.settings import AdapterSettings
from lifelong.model.tiny import tiny_random_model
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry
from lifelong.stream.kafka import KafkaSink, KafkaSource

pytestmark = [pytest.mark.kafka]

_WAIT_SECONDS = 120.0
_ADAPTER = AdapterSettings(rank=4, alpha=8)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)


class Stage:
    """One line on the servers of the session, and the inference processes that serve it."""

    def __init__(self, folder: Path, kafka: KafkaSettings, redis_url: str, line: str) -> None:
        self.kafka, self.line = kafka, line
        self.base = tiny_random_model(0, folder / "model")
        self.registry = Registry(DirectoryStore(folder / "artifacts"), RedisPointers(redis_url))
        self.memory = RedisMemory(redis_url, line)
        epoch = self.registry.pointers.acquire(line, "test", 3600, 0)
        assert epoch is not None
        self.epoch = epoch
        self.log = folder / "inference.log"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "LIFELONG_CACHE": str(folder / "cache"),
            "LIFELONG_LINE__NAME": line,
            "LIFELONG_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "LIFELONG_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
            "LIFELONG_REDIS__URL": redis_url,
            "LIFELONG_ARTIFACTS__URL": str(folder / "artifacts"),
            "LIFELONG_MODEL__NAME": str(folder / "model"),
            "LIFELONG_MODEL__DTYPE": "float32",
            "LIFELONG_MODEL__DEVICE": "cpu",
            "LIFELONG_MODEL__THREADS": "1",
            "LIFELONG_MEMORY__EMBEDDER": "hash",
            "LIFELONG_INFERENCE__PORT": self.url.rpartition(":")[2],
            "LIFELONG_INFERENCE__DEFAULT_MAX_TOKENS": "8",
        }

    @contextlib.contextmanager
    def server(self, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process that is ready."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lifelong.inference"],
                env=self.environment | environment,
                stdout=log,
                stderr=log,
            )
            try:
                wait_until(lambda: self.is_ready() or process.poll() is not None, f"ready\n{self.log}")
                assert process.poll() is None, self.log.read_text()
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def is_ready(self) -> bool:
        try:
            return httpx.get(self.url + "/ready").status_code == 200
        except httpx.TransportError:
            return False

    def health(self) -> dict[str, Any]:
        report: dict[str, Any] = httpx.get(self.url + "/health").json()
        return report

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0)

    def chat(self, question: str, **fields: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": question}], **fields}
        return httpx.post(self.url + "/v1/chat/completions", json=body, timeout=60)

    def promote(self, number: int) -> Manifest:
        """A version with weights of its own."""
        model = add_adapter(view_of(self.base), _ADAPTER, seed=0)
        generator = torch.Generator().manual_seed(number)
        state = {n: 0.3 * torch.randn(t.shape, generator=generator) for n, t in adapter_state(model).items()}
        load_adapter_state(model, state)
        hashes = tensor_hashes(adapter_state(model))
        manifest = Manifest(
            line=self.line, number=number, parent=number - 1, kind="active", base=self.base.name,
            base_sha256=self.base.sha256, epoch=self.epoch, created=time.time(), tensors=hashes,
            weights_sha256=combined_sha256(hashes), files={}, folder="", watermarks={}, positions={},
            verdict=Verdict(True, "made for a test"), newest_event_time=time.time(),
        )  # fmt: skip
        manifest = self.registry.commit(manifest, adapter_files(model))
        self.registry.promote(self.line, number, epoch=self.epoch)
        return manifest

    def ask(self, *requests: Request) -> None:
        sink = KafkaSink(self.kafka)
        for request in requests:
            sink.send(topics.REQUESTS.name, encode(request), key=request.id.encode())
        sink.flush()
        sink.close()

    @contextlib.contextmanager
    def outputs(self) -> Iterator[Callable[[], list[Output]]]:
        """A function that says all outputs that there are."""
        source = KafkaSource(self.kafka, [topics.OUTPUTS.name])
        source.seek({})
        found: list[Output] = []

        def read() -> list[Output]:
            found.extend(decode(record.value, Output) for record in source.poll(0.2))
            return found

        try:
            yield read
        finally:
            source.close()

    def read(self, topic: topics.Topic) -> list[Any]:
        source = KafkaSource(self.kafka, [topic.name])
        source.seek({})
        records: list[Any] = []
        wanted = sum(source.end_positions().values())
        while len(records) < wanted:
            records += source.poll(1.0)
        source.close()
        return records


@pytest.fixture
def stage(tmp_path: Path, kafka_settings: KafkaSettings, redis_url: str, fresh_line: str) -> Stage:
    return Stage(tmp_path, kafka_settings, redis_url, fresh_line)


def request(**fields: Any) -> Request:
    identifier = uuid.uuid4().hex
    return Request(id=identifier, messages=(Message("user", f"What is {identifier}?"),), **fields)


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A server that does not answer, and then does again."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_official_client_asks_is_answered_and_gives_feedback(stage: Stage) -> None:
    manifest = stage.promote(1)
    entry = MemoryEntry(
        id="0-1-0", event_id="e1", text="Where is the key? Under the mat.", kind="correction", event_time=1.0,
        question="Where is the key?", answer="Under the mat.",
    )  # fmt: skip
    with stage.server() as process, stage.client() as client, stage.outputs() as outputs:
        stage.memory.put([entry])
        wait_until(lambda: stage.health()["memory_entries"] == 1, "the memory is read")
        question: Any = [{"role": "user", "content": "Where is the key?"}]
        whole = client.chat.completions.create(model=stage.line, messages=question)
        stream = client.chat.completions.create(model=stage.line, messages=question, stream=True)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert streamed == whole.choices[0].message.content
        assert whole.model == f"{stage.line}@1"
        assert whole.system_fingerprint == f"fp_{manifest.weights_sha256[:12]}"
        ours: Any = whole.model_extra
        assert ours["lifelong"]["memories"][0]["event_id"] == "e1"

        pinned = client.chat.completions.create(
            model=f"{stage.line}@0", messages=question, extra_body={"memory": False}
        )
        assert pinned.model == f"{stage.line}@0"
        assert pinned.choices[0].message.content != whole.choices[0].message.content
        assert client.completions.create(model=stage.line, prompt="Once").choices[0].text
        assert stage.line in [model.id for model in client.models.list()]
        assert client.models.retrieve(f"{stage.line}@1").id == f"{stage.line}@1"
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-5", messages=question)

        output_id = ours["lifelong"]["output_id"]
        reply = httpx.post(
            stage.url + "/v1/feedback", json={"output_id": output_id, "correction": "Under the mat."}, timeout=60
        )
        assert reply.status_code == 202, reply.text
        wait_until(lambda: len(outputs()) == 4, "all four answers are published")
        assert output_id in {output.id for output in outputs()}
        metrics = httpx.get(stage.url + "/metrics").text
        assert 'lifelong_memory_hits_total{hit="yes"} 2.0' in metrics
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, stage.log.read_text()
    (record,) = stage.read(topics.EVENTS)
    event = decode_event(record.value, record.headers, record_time=0, max_bytes=100_000)
    assert event.id == reply.json()["event_id"]
    assert isinstance(event.data, Feedback)
    assert event.data.answer == whole.choices[0].message.content


def test_versions_come_while_fifty_requests_run_and_none_fails(stage: Stage) -> None:
    num_askers, num_each = 10, 5
    replies: list[httpx.Response] = []
    failures: list[BaseException] = []

    def asker(index: int) -> None:
        try:
            for number in range(num_each):
                replies.append(stage.chat(f"What is {index} times {number}?", memory=False, max_tokens=24))
        except BaseException as error:
            failures.append(error)

    with stage.server():
        threads = [threading.Thread(target=asker, args=(index,)) for index in range(num_askers)]
        for thread in threads:
            thread.start()
        for number in range(1, 6):
            stage.promote(number)
            wait_until(lambda n=number: stage.health()["version"] == f"{stage.line}@{n}", f"version {number} answers")
        for thread in threads:
            thread.join()
        assert failures == []
        assert [reply.status_code for reply in replies] == [200] * num_askers * num_each
        answers = [reply.json() for reply in replies]
        assert {answer["model"] for answer in answers} - {f"{stage.line}@{n}" for n in range(6)} == set()
        stage.chat("One more, of the last.")
        metrics = httpx.get(stage.url + "/metrics").text
    assert f'lifelong_swap_seconds_count{{line="{stage.line}"}} 5.0' in metrics
    # Of a version that nobody asked before the next one came there is no first answer.
    num_fresh = float(metrics.split("lifelong_freshness_seconds_count ")[1].split()[0])
    assert 1 <= num_fresh <= 5


def test_requests_from_the_topic_are_answered_whatever_is_killed(stage: Stage) -> None:
    requests = [request(max_tokens=200) for _ in range(24)]
    refused = [request(model="nobody"), request(model=f"{stage.line}@99")]
    with stage.outputs() as outputs:
        with stage.server() as process:
            stage.ask(*requests, *refused)
            wait_until(lambda: len(outputs()) >= 4, "the first answers")
            process.kill()
            process.wait()
        assert len({output.request_id for output in outputs()}) < len(requests), "killed too late to show anything"
        with stage.server() as process:
            wanted = {one.id for one in [*requests, *refused]}
            wait_until(lambda: {output.request_id for output in outputs()} >= wanted, f"all answered\n{stage.log}")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, stage.log.read_text()
        answers = [output for output in outputs() if output.finish_reason != "error"]
        assert {output.request_id for output in answers} == {one.id for one in requests}
        # An answer that was given twice is the same answer, with the same id.
        assert len({(output.id, output.answer) for output in answers}) == len(requests)
        errors = {output.request_id for output in outputs() if output.finish_reason == "error"}
        assert errors == {one.id for one in refused}
        num_before = Counter(output.request_id for output in outputs())
        # What was told to stop has committed everything: nothing is answered again.
        last = request(max_tokens=2)
        with stage.server():
            stage.ask(last)
            wait_until(lambda: last.id in {output.request_id for output in outputs()}, "the last one answered")
            assert Counter(output.request_id for output in outputs()) - num_before == {last.id: 1}
    assert stage.read(topics.REQUESTS_DLQ)


def test_two_servers_share_the_requests_and_one_takes_over_from_the_other(stage: Stage) -> None:
    asked: set[str] = set()

    def ask(count: int) -> None:
        requests = [request(max_tokens=4) for _ in range(count)]
        stage.ask(*requests)
        asked.update(one.id for one in requests)

    def num_answered(url: str) -> float:
        lines = httpx.get(url + "/metrics").text.splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if "lifelong_requests_total{" in line and '"topic"' in line
        )

    with stage.outputs() as outputs, stage.server():
        first, stage.url = stage.url, f"http://127.0.0.1:{free_port()}"
        with stage.server(LIFELONG_INFERENCE__PORT=stage.url.rpartition(":")[2]) as second:

            def both_answer() -> bool:
                ask(4)
                return num_answered(first) > 0 and num_answered(stage.url) > 0

            wait_until(both_answer, f"both answer\n{stage.log}")
            second.send_signal(signal.SIGTERM)
            assert second.wait(60) == 0, stage.log.read_text()
        ask(8)
        wait_until(lambda: {output.request_id for output in outputs()} == asked, f"all answered\n{stage.log}")


def test_without_kafka_it_answers_until_the_answers_that_wait_are_too_many(stage: Stage, servers: Servers) -> None:
    _, kafka = servers.pids
    with stage.server(LIFELONG_INFERENCE__OUTPUTS_WAITING="3") as process, stage.outputs() as outputs:
        stage.chat("Is everything there?")
        wait_until(lambda: len(outputs()) == 1, "the first answer is published")
        with frozen(kafka):
            replies = [stage.chat(f"Number {number}?") for number in range(6)]
            codes = [reply.status_code for reply in replies]
            assert codes == [200, 200, 200, 503, 503, 503]
            assert "wait to be published" in replies[-1].json()["error"]["message"]
        wait_until(lambda: len({output.id for output in outputs()}) == 4, f"all are published\n{stage.log}")
        wait_until(lambda: stage.chat("Again?").status_code == 200, "it answers again")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, stage.log.read_text()


def test_without_redis_it_goes_on_with_the_version_it_has_and_says_so(stage: Stage, servers: Servers) -> None:
    valkey, _ = servers.pids
    stage.promote(1)
    with stage.server() as process:
        with frozen(valkey):
            for number in range(5):
                assert stage.chat(f"Number {number}?").json()["model"] == f"{stage.line}@1"
            wait_until(lambda: stage.line in stage.health()["trouble"], "it says that Redis does not answer")
            assert stage.is_ready()
            assert stage.chat("Still there?").json()["model"] == f"{stage.line}@1"
        stage.promote(2)
        wait_until(lambda: stage.health()["version"] == f"{stage.line}@2", f"the next version\n{stage.log}")
        wait_until(lambda: not stage.health()["trouble"], "no trouble any more")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, stage.log.read_text()


def test_told_to_stop_it_ends_the_answer_under_way(stage: Stage) -> None:
    with stage.server() as process, stage.client() as client, stage.outputs() as outputs:
        question: Any = [{"role": "user", "content": "A long story, please."}]
        stream = client.chat.completions.create(model=stage.line, messages=question, stream=True, max_tokens=300)
        chunks = iter(stream)
        next(chunks)
        process.send_signal(signal.SIGTERM)
        rest = list(chunks)
        assert rest[-1].choices[0].finish_reason in ("stop", "length")
        assert process.wait(60) == 0, stage.log.read_text()
        wait_until(lambda: len(outputs()) == 1, "the answer is published")


def test_a_port_that_is_taken_is_said_at_once(stage: Stage) -> None:
    with stage.server():
        second = subprocess.run(
            [sys.executable, "-m", "lifelong.inference"], env=stage.environment, capture_output=True, timeout=120
        )
    assert second.returncode == 2
    assert b"inference.port" in second.stderr
