"""The commands on a real Kafka and a real Valkey, with versions made by hand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lifelong.cli import app
from lifelong.cli.probes import UnknownProbeError
from lifelong.config.shared import KafkaSettings
from lifelong.contracts import topics
from lifelong.contracts.codec import decode, decode_event, encode
from lifelong.contracts.events import Document, Fact, Feedback, Forget, Message, Probe
from lifelong.contracts.requests import Output
from lifelong.contracts.samples import Sample
from lifelong.contracts.versions import Batch, Manifest, Refused, Verdict, VersionEvent
from lifelong.errors import CorruptVersionError, UnknownVersionError
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.pointers import RedisPointers
from lifelong.registry.registry import Registry
from lifelong.stream.kafka import KafkaSink, KafkaSource
from lifelong.trainer.state import pack_samples

pytestmark = pytest.mark.kafka


class Shell:
    """Commands typed where the settings name the servers of this session."""

    def __init__(self, kafka: KafkaSettings, redis_url: str, line: str, artifacts: Path) -> None:
        self.kafka, self.line = kafka, line
        self.registry = Registry(DirectoryStore(artifacts), RedisPointers(redis_url))
        self._runner = CliRunner()

    def run(self, *words: str, input: str | None = None) -> Result:
        return self._runner.invoke(app, list(words), input=input)

    def says(self, *words: str, input: str | None = None) -> str:
        result = self.run(*words, input=input)
        assert result.exception is None, result.output
        return result.stdout

    def learn(
        self,
        number: int,
        accepted: bool = True,
        line: str | None = None,
        refused: tuple[Refused, ...] = (),
        probes: Sequence[Sample] = (),
    ) -> Manifest:
        """What a trainer does."""
        line = line or self.line
        writer = f"trainer {number}"
        epoch = self.registry.pointers.acquire(line, writer, 60, 0)
        assert epoch is not None
        manifest = Manifest(
            line=line, number=number, parent=number - 1, kind="active", base="tiny", base_sha256="0", epoch=epoch,
            created=1_700_000_000.0, weights_sha256=f"{number:064x}", files={}, folder="", watermarks={}, positions={},
            verdict=Verdict(accepted, "for a reason"), refused=refused,
            batches=(Batch(samples=tuple(name for part in refused for name in part.samples)),),
        )  # fmt: skip
        manifest = self.registry.commit(
            manifest, {"weights": str(number).encode(), "probes.jsonl": pack_samples(probes)}
        )
        if accepted:
            self.registry.promote(line, number, epoch=epoch)
        self.registry.pointers.release(line, writer)
        return manifest

    def records(self, topic: str) -> list[Any]:
        source = KafkaSource(self.kafka, [topic])
        try:
            source.seek({})
            wanted = sum(source.end_positions().values())
            records: list[Any] = []
            while len(records) < wanted:
                records += source.poll(1.0)
            return records
        finally:
            source.close()

    def announced(self) -> list[tuple[int, str]]:
        events = [decode(record.value, VersionEvent) for record in self.records(topics.VERSIONS.name)]
        return [(event.number, event.change) for event in events]

    def events(self) -> list[Any]:
        records = self.records(topics.EVENTS.name)
        return [decode_event(r.value, r.headers, record_time=r.time, max_bytes=100_000) for r in records]


@pytest.fixture
def shell(
    kafka_settings: KafkaSettings, redis_url: str, fresh_line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shell:
    for name, value in {
        "LIFELONG_KAFKA__BOOTSTRAP_SERVERS": kafka_settings.bootstrap_servers,
        "LIFELONG_KAFKA__TOPIC_PREFIX": kafka_settings.topic_prefix,
        "LIFELONG_KAFKA__PARTITIONS": "2",
        "LIFELONG_REDIS__URL": redis_url,
        "LIFELONG_ARTIFACTS__URL": str(tmp_path / "artifacts"),
        "LIFELONG_LINE__NAME": fresh_line,
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    return Shell(kafka_settings, redis_url, fresh_line, tmp_path / "artifacts")


def test_versions_are_listed_newest_first(shell: Shell) -> None:
    shell.learn(1)
    shell.learn(2, accepted=False)
    rows = [line.split("│") for line in shell.says("versions", "list").splitlines() if "│" in line]
    assert [(row[1].strip(), row[2].strip(), row[5].strip()) for row in rows] == [
        ("2", "", "rejected: for a reason"),
        ("1", "live", "accepted"),
    ]
    found = json.loads(shell.says("versions", "list", "--json"))
    assert found["state"]["live"] == 1
    assert [manifest["number"] for manifest in found["versions"]] == [1, 2]


def test_a_line_of_its_own_can_be_named(shell: Shell) -> None:
    student = f"{shell.line}-student"
    shell.learn(1, line=student)
    assert json.loads(shell.says("versions", "list", "--json"))["versions"] == []
    assert len(json.loads(shell.says("versions", "list", "--json", "--line", student))["versions"]) == 1


def test_a_version_is_shown_whole(shell: Shell) -> None:
    manifest = shell.learn(1)
    assert decode(shell.says("versions", "show", "1").encode(), Manifest) == manifest
    assert isinstance(shell.run("versions", "show", "9").exception, UnknownVersionError)


def test_back_and_forth(shell: Shell) -> None:
    shell.learn(1)
    shell.learn(2, accepted=False)
    shell.learn(3)
    assert f"{shell.line}@1 is live and held" in shell.says("versions", "rollback")
    shell.learn(4)
    assert shell.registry.state(shell.line).live == 1
    assert f"{shell.line}@4 is live; newer versions follow" in shell.says("versions", "promote")
    shell.learn(5)
    assert shell.registry.state(shell.line).live == 5
    assert f"{shell.line}@3 is live and held" in shell.says("versions", "promote", "3")
    shell.learn(6)
    assert shell.registry.state(shell.line).live == 3
    assert f"{shell.line}@0 is live and held" in shell.says("versions", "rollback", "0")
    assert shell.announced() == [(1, "rolled-back"), (4, "promoted"), (3, "promoted"), (0, "rolled-back")]


def test_there_is_nothing_before_the_base(shell: Shell) -> None:
    assert isinstance(shell.run("versions", "rollback").exception, UnknownVersionError)
    assert shell.announced() == []


def test_a_version_whose_files_are_gone_does_not_go_live(shell: Shell) -> None:
    gone = shell.learn(1)
    shell.learn(2)
    shell.registry.store.drop(gone.folder)
    for command in ("rollback", "promote"):
        assert isinstance(shell.run("versions", command, "1").exception, CorruptVersionError)
    assert shell.registry.state(shell.line).live == 2
    assert shell.announced() == []


def test_topics_are_checked_and_applied(
    shell: Shell, kafka_servers: str, fresh_line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell.run("topics", "check").exit_code == 0
    monkeypatch.setenv("LIFELONG_KAFKA__TOPIC_PREFIX", f"{fresh_line}.more.")
    missing = shell.run("topics", "check")
    assert missing.exit_code == 1
    assert len(missing.output.splitlines()) == len(topics.TOPICS)
    assert f"{fresh_line}.more.{topics.EVENTS.name} is missing" in missing.output
    created = shell.says("topics", "apply")
    assert f"{fresh_line}.more.{topics.EVENTS.name}: created with 2 partitions" in created
    assert shell.says("topics", "apply") == "nothing to change\n"
    assert shell.says("topics", "check") == ""


def test_events_are_published(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"type": "lifelong.fact", "data": {"subject": "a", "relation": "b", "object": "c"}}\n')
    question = (Message("user", "Where?"),)
    ids = [
        shell.says("publish", "one").strip(),
        shell.says("publish", "-", input="two").strip(),
        shell.says("publish", "--file", str(file)).strip(),
        shell.says("feedback", "Where?", "--correction", "There.").strip(),
        shell.says("feedback", "Where?", "--answer", "Here.", "--rating", "-1").strip(),
    ]
    assert {event.id: event.data for event in shell.events()} == dict(
        zip(
            ids,
            [
                Document(text="one"),
                Document(text="two"),
                Fact(subject="a", relation="b", object="c"),
                Feedback(messages=question, correction="There."),
                Feedback(messages=question, answer="Here.", rating=-1),
            ],
            strict=True,
        )
    )


def test_probes_are_added_listed_and_removed(shell: Shell, tmp_path: Path) -> None:
    assert json.loads(shell.says("probes", "list", "--json"))["probes"] == []
    [one] = shell.says("probes", "add", "--question", "Who?", "--answer", "Ann.", "--task", "people").split()
    file = tmp_path / "probes.jsonl"
    file.write_text('{"question": "Where?", "answer": "Here."}\n{"question": "When?", "answer": "Now."}\n')
    others = shell.says("probes", "add", "--file", str(file)).split()
    events = {event.id: event.data for event in shell.events()}
    assert [events[name] for name in (one, *others)] == [
        Probe("Who?", "Ann.", "people"), Probe("Where?", "Here."), Probe("When?", "Now."),
    ]  # fmt: skip
    # As the trainer keeps them.
    messages = (Message("user", "Who?"), Message("assistant", "Ann."))
    shell.learn(1, probes=[Sample(id="0-0-0", event_id=one, event_time=1.0, task="people", messages=messages)])
    assert json.loads(shell.says("probes", "list", "--json")) == {
        "version": f"{shell.line}@1",
        "probes": [{"id": one, "task": "people", "question": "Who?", "answer": "Ann."}],
    }
    assert "Who?" in shell.says("probes", "list")
    assert isinstance(shell.run("probes", "remove", others[0]).exception, UnknownProbeError)
    shell.says("probes", "remove", one)
    records = shell.records(topics.EVENTS.name)
    assert [event.data for event in shell.events()].count(Forget(event_ids=(one,))) == 1
    # One after the other, whoever reads them.
    assert len({(record.partition, record.key) for record in records}) == 1


def test_what_was_refused_is_listed(shell: Shell) -> None:
    assert json.loads(shell.says("quarantine", "list", "--json")) == []
    shell.learn(1, refused=(Refused(("0-1-0",), ("e1",), "older:t became less likely"),))
    shell.learn(2)
    bad = Refused(("0-4-0", "0-5-0"), ("e4", "e5"), "new samples became less likely")
    shell.learn(3, accepted=False, refused=(bad,))
    found = json.loads(shell.says("quarantine", "list", "--json"))
    assert [(row["version"], row["events"]) for row in found] == [
        (f"{shell.line}@3", ["e4", "e5"]),
        (f"{shell.line}@1", ["e1"]),
    ]
    assert found[0]["reason"] == "new samples became less likely"
    assert "older:t became less likely" in shell.says("quarantine", "list")
    assert len(json.loads(shell.says("quarantine", "list", "--json", "--last", "1"))) == 1
    assert "(1 refused)" in shell.says("versions", "list")


def test_outputs_are_one_json_a_line(shell: Shell) -> None:
    output = Output("o", "r", f"{shell.line}@1", "tiny", (), "ä", "stop", 1.0)
    sink = KafkaSink(shell.kafka)
    sink.send(topics.OUTPUTS.name, encode(output), key=b"k")
    sink.flush()
    sink.close()
    assert decode(shell.says("outputs", "--from-beginning", "--idle-seconds", "1").encode(), Output) == output


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str | None, Any]]]:
    """An inference server; what it was asked, as (authorization, body)."""
    asked: list[tuple[str | None, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.headers["Authorization"], body))
            ours = {"output_id": "o1", "version": "lifelong@3", "memories": [], "newest_event_time": None}
            reply = json.dumps({"choices": [{"message": {"content": "Under the mat."}}], "lifelong": ours}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    monkeypatch.setenv("LIFELONG_HTTP", f"http://127.0.0.1:{http.server_port}")
    yield asked
    http.shutdown()
    http.server_close()
    thread.join()


def test_a_question_is_answered(
    shell: Shell, server: list[tuple[str | None, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell.says("ask", "Where is the key?") == "Under the mat.\n"
    monkeypatch.setenv("LIFELONG_API_KEY", "secret")
    answer = json.loads(shell.says("ask", "Where?", "--model", "lifelong@3", "--no-memory", "--user", "ann", "--json"))
    assert (answer["text"], answer["version"], answer["output_id"]) == ("Under the mat.", "lifelong@3", "o1")
    (plain, first), (authorised, second) = server
    assert (plain, authorised) == (None, "Bearer secret")
    assert (first["model"], first["memory"], first["user"]) == (None, True, None)
    assert (second["model"], second["memory"], second["user"]) == ("lifelong@3", False, "ann")
