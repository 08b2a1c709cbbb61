from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, NamedTuple

import msgspec
import pytest
import torch

from lifelong.contracts import metrics as names
from lifelong.contracts.events import Message
from lifelong.contracts.requests import Request
from lifelong.contracts.versions import Manifest
from lifelong.errors import CorruptVersionError, RegistryError, UnknownVersionError, UnreachableError
from lifelong.inference.versions import Versions
from lifelong.inference.wire import Ask
from lifelong.model.adapter import adapter_files, adapter_state, add_adapter, load_adapter_state
from lifelong.model.base import view_of
from lifelong.model.settings import AdapterSettings
from lifelong.model.student import build_student
from lifelong.model.tokenise import encode_prompt
from lifelong.registry.local import LocalPointers

LINE = "lifelong"


def ask(number: int, **fields: Any) -> Ask:
    fields = {"memory": False, "max_tokens": 12, **fields}
    return Ask(Request(id=f"r{number}", messages=(Message("user", f"What is {number}?"),), **fields))


def answer(server: Any, question: Ask) -> Any:
    begun = server.answerer.begin(question, "chat")
    return server.answerer.finish(begun, begun.running.result(60))


def test_the_live_version_is_followed_and_the_old_one_kept_hot(server: Any) -> None:
    base = answer(server, ask(1))
    server.commit(1, event_time=100.0)
    server.versions.refresh()
    learned = answer(server, ask(1))
    assert (base.version, learned.version) == ("lifelong@0", "lifelong@1")
    assert learned.answer != base.answer
    assert learned.newest_event_time == 100.0
    assert server.metrics.value(names.VERSION, line=LINE, pointer="live") == 1
    assert server.metrics.value(names.SWAP_SECONDS, line=LINE) == 1

    server.registry.rollback(LINE, 0)
    server.versions.refresh()
    assert answer(server, ask(1)).answer == base.answer


def test_freshness_is_observed_once_for_each_version(server: Any) -> None:
    server.commit(1, event_time=time.time() - 5)
    server.versions.refresh()
    for number in range(3):
        answer(server, ask(number))
    assert server.metrics.value(names.FRESHNESS) == 1
    total = server.metrics.registry.get_sample_value("lifelong_freshness_seconds_sum")
    assert 5 <= total < 60


def test_freshness_is_not_that_of_old_versions(server: Any) -> None:
    """Asked for by number, or gone back to: they learned long ago."""
    for number in (1, 2):
        server.commit(number, event_time=1.0)
    server.versions.refresh()
    answer(server, ask(1, model="lifelong@1"))
    assert server.metrics.value(names.FRESHNESS) == 0
    answer(server, ask(1))
    assert server.metrics.value(names.FRESHNESS) == 1
    server.registry.rollback(LINE, 1)
    server.versions.refresh()
    assert answer(server, ask(1)).version == "lifelong@1"
    assert server.metrics.value(names.FRESHNESS) == 1


def restarted(server: Any) -> Versions:
    return Versions(
        server.engine, server.base, server.registry, server.metrics,
        line=LINE, student_line=LINE + "-student", num_hot=2, num_pinned=2, retry_seconds=1e9,
    )  # fmt: skip


def test_what_was_live_before_the_start_counts_neither_as_a_swap_nor_as_fresh(server: Any) -> None:
    server.commit(1, event_time=1.0)
    versions = restarted(server)
    versions.refresh()
    assert versions.live(LINE)[0] == "lifelong@1"
    assert server.metrics.value(names.SWAP_SECONDS, line=LINE) == 0
    assert not versions.take_first_answer("lifelong@1")


def damage(server: Any, manifest: Any) -> None:
    files = server.registry.store._folders[manifest.folder]
    files["adapter_model.safetensors"] = b"\0" + files["adapter_model.safetensors"][1:]


def test_at_the_start_the_version_before_a_damaged_one_answers(server: Any) -> None:
    server.commit(1)
    server.commit(2)
    damage(server, server.commit(3))
    versions = restarted(server)
    versions.refresh()
    assert versions.live(LINE)[0] == "lifelong@2"
    assert "adapter_model.safetensors" in versions.trouble[LINE]
    server.commit(4)
    versions.refresh()
    assert versions.live(LINE)[0] == "lifelong@4"
    assert versions.trouble == {}


def test_a_damaged_version_is_not_read_again_at_every_look(server: Any, monkeypatch: Any) -> None:
    server.commit(1)
    versions = restarted(server)
    versions.refresh()
    damage(server, server.commit(2))
    num_reads = 0
    weights = server.registry.weights

    def counted(*args: Any) -> bytes:
        nonlocal num_reads
        num_reads += 1
        return weights(*args)

    monkeypatch.setattr(server.registry, "weights", counted)
    versions.refresh()
    after_first = num_reads
    assert after_first
    for _ in range(3):
        versions.refresh()
    assert num_reads == after_first
    assert versions.trouble[LINE]


def test_without_a_pointer_nothing_answers(server: Any) -> None:
    """Whatever was guessed could be what an operator has rolled back."""
    server.commit(1)
    pointers = server.registry.pointers
    server.registry.pointers = Away()
    versions = restarted(server)
    versions.refresh()
    assert not versions.ready
    with pytest.raises(UnreachableError, match="no Redis"):
        versions.hold(None)
    server.registry.pointers = pointers
    versions.refresh()
    assert versions.ready
    assert versions.trouble == {}


def test_manifests_of_versions_that_are_gone_are_not_kept(server: Any) -> None:
    for number in range(1, 8):
        server.commit(number)
        server.versions.refresh()
    deadline = time.monotonic() + 10
    while len(server.engine.generations()) > 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    server.versions.refresh()
    assert set(server.versions._manifests) == {"lifelong@6", "lifelong@7"}


def test_any_version_answers_by_its_number(server: Any) -> None:
    for number in (1, 2, 3):
        server.commit(number)
    server.versions.refresh()
    pinned = {number: answer(server, ask(1, model=f"lifelong@{number}")) for number in (0, 1, 2, 3)}
    assert [output.version for output in pinned.values()] == [f"lifelong@{number}" for number in (0, 1, 2, 3)]
    assert len({output.answer for output in pinned.values()}) == 4
    assert answer(server, ask(1)).answer == pinned[3].answer
    # Two pinned, two hot: the oldest pinned one has gone.
    deadline = time.monotonic() + 10
    while len(server.engine.generations()) > 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(server.engine.generations()) <= 4


def distil(server: Any, kept: str = "0,1,3") -> Student:
    """A student of the tiny base, with an adapter of its own, live on its line."""
    student = build_student(server.base, [0, 1, 3])
    shape = AdapterSettings(rank=2, alpha=4, fraction=1.0)
    model = add_adapter(view_of(student.base), shape, seed=0)
    generator = torch.Generator().manual_seed(9)
    state = {n: 0.3 * torch.randn(t.shape, generator=generator) for n, t in adapter_state(model).items()}
    load_adapter_state(model, state)
    line = LINE + "-student"
    epoch = server.registry.pointers.acquire(line, "test", 1e9, 0)
    number = len(server.registry.versions(line)) + 1
    manifest = Manifest(
        line=line, number=number, parent=number - 1, kind="student", base=student.base.name,
        base_sha256=student.base.sha256, epoch=epoch, created=1.0, weights_sha256="0" * 64, files={}, folder="",
        watermarks={}, positions={}, settings={"kept_layers": kept}, teacher="lifelong@1",
    )  # fmt: skip
    server.registry.commit(manifest, adapter_files(model))
    server.registry.promote(line, number, epoch=epoch)
    return Student(student.base, model)


class Student(NamedTuple):
    base: Any
    model: Any


def test_the_student_answers_by_its_name_beside_the_live_version(server: Any) -> None:
    student = distil(server)
    server.versions.refresh()
    assert server.versions.trouble == {}
    learned = answer(server, ask(1, model="lifelong-student"))
    assert learned.version == "lifelong-student@1"
    assert learned.answer == _greedy(student.base, student.model, 1)
    assert learned.answer != answer(server, ask(1)).answer
    assert answer(server, ask(1)).version == "lifelong@0"
    assert "lifelong-student" in server.versions.models()
    # It came while we served.
    assert server.metrics.value(names.SWAP_SECONDS, line="lifelong-student") == 1


@pytest.mark.parametrize("kept", ["", "0,1,77", "all"])
def test_a_student_of_another_base_is_refused(server: Any, kept: str) -> None:
    distil(server, kept)
    server.versions.refresh()
    assert "lifelong-student" in server.versions.trouble
    with pytest.raises(RegistryError):
        server.answerer.begin(ask(1, model="lifelong-student@1"), "chat")
    assert answer(server, ask(1)).version == "lifelong@0"


def test_what_is_not_there_is_said(server: Any) -> None:
    for model in ("lifelong@9", "other", "lifelong-student", "lifelong-student@0", "lifelong@x"):
        with pytest.raises(UnknownVersionError):
            server.answerer.begin(ask(1, model=model), "chat")


def test_a_damaged_version_leaves_the_old_one_answering(server: Any) -> None:
    server.commit(1)
    server.versions.refresh()
    before = answer(server, ask(1))
    manifest = server.commit(2)
    files = server.registry.store._folders[manifest.folder]
    good = dict(files)
    files["adapter_model.safetensors"] = b"\0" + files["adapter_model.safetensors"][1:]
    server.versions.refresh()
    assert answer(server, ask(1)).answer == before.answer
    assert "adapter_model.safetensors" in server.versions.trouble[LINE]
    with pytest.raises(CorruptVersionError):
        server.answerer.begin(ask(1, model="lifelong@2"), "chat")

    files.update(good)
    server.versions.refresh()
    assert answer(server, ask(1)).version == "lifelong@2"
    assert server.versions.trouble == {}


def test_a_version_of_another_base_is_refused(server: Any) -> None:
    manifest = server.commit(1, live=False)
    other = msgspec.structs.replace(manifest, number=2, base_sha256="0" * 64)
    server.registry.commit(other, {})
    server.registry.promote(LINE, 2, epoch=server.epoch)
    server.versions.refresh()
    assert answer(server, ask(1)).version == "lifelong@0"
    assert "model.name" in server.versions.trouble[LINE]


def test_a_pointer_of_an_older_epoch_is_not_followed(server: Any) -> None:
    server.commit(1)
    server.versions.refresh()
    state = server.registry.state(LINE)
    server.registry.pointers = _Fixed(msgspec.structs.replace(state, live=0, epoch=state.epoch - 1))
    server.versions.refresh()
    assert answer(server, ask(1)).version == "lifelong@1"
    assert "epoch" in server.versions.trouble[LINE]


def test_pointers_that_were_lost_may_be_of_an_older_epoch(server: Any) -> None:
    """Writers that came and went without a version leave no trace but in the pointers."""
    server.versions.refresh()
    pointers = LocalPointers(server.registry.clock)
    server.registry.pointers = pointers
    for _ in range(3):
        epoch = pointers.acquire(LINE, "w", 1.0, 0)
        pointers.release(LINE, "w")
    server.versions.refresh()
    assert (pointers.read(LINE).epoch, server.versions.trouble) == (epoch, {})
    pointers._lines.clear()
    server.versions.refresh()
    assert (pointers.read(LINE).epoch < epoch, server.versions.trouble) == (True, {})


class _Fixed:
    def __init__(self, state: Any) -> None:
        self._state = state

    def read(self, line: str) -> Any:
        return self._state


def test_under_load_every_answer_is_that_of_the_version_it_names(server: Any) -> None:
    """Fifty requests while five versions come: none fails, none mixes versions."""
    outputs: list[Any] = []
    failures: list[BaseException] = []

    def client(first: int) -> None:
        try:
            for number in range(first, first + 5):
                outputs.append((number, answer(server, ask(number))))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client, args=(5 * index,)) for index in range(10)]
    for thread in threads:
        thread.start()
    for number in (1, 2, 3, 4, 5):
        server.commit(number)
        server.versions.refresh()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(outputs) == 50
    assert len({output.version for _, output in outputs}) > 1
    for number, output in outputs:
        alone = answer(server, ask(number, model=output.version))
        assert output.answer == alone.answer
        assert output.answer == _by_generate(server, number, output.version)


def _by_generate(server: Any, number: int, version: str) -> str:
    """What transformers' own ``generate`` says with the weights of that version."""
    of_version = int(version.partition("@")[2])
    model: Any = view_of(server.base).model
    if of_version:
        model = add_adapter(view_of(server.base), server.settings.adapter, seed=0)
        load_adapter_state(model, server.adapter(of_version))
    return _greedy(server.base, model, number)


def _greedy(base: Any, model: Any, number: int) -> str:
    prompt = encode_prompt(base.tokenizer, [Message("user", f"What is {number}?")])
    with torch.no_grad():
        ids = model.generate(
            input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=12, do_sample=False,
        )[0, len(prompt) :].tolist()  # fmt: skip
    ends = [index for index, token in enumerate(ids) if token in base.end_tokens]
    text: str = base.tokenizer.decode(ids[: ends[0]] if ends else ids, skip_special_tokens=True)
    return text


class Away:
    def read(self, line: str) -> Any:
        raise UnreachableError("no Redis")


def test_refresh_survives_a_registry_that_is_away(server: Any) -> None:
    server.registry.pointers = Away()
    server.versions.refresh()
    assert answer(server, ask(1)).version == "lifelong@0"
    assert server.versions.trouble[LINE] == "no Redis"


def test_an_asker_that_leaves_frees_its_place(server: Any) -> None:
    async def leave() -> None:
        async with server.client() as client:
            body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 400}
            async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
                async for _ in reply.aiter_lines():
                    break

    asyncio.run(leave())
    deadline = time.monotonic() + 30
    while server.engine.num_requests and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.engine.num_requests == 0
