from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import openai
import pytest

from lifelong.contracts.codec import decode_event
from lifelong.contracts.events import Feedback
from lifelong.errors import UnreachableError
from lifelong.inference.config import InferenceSettings, Settings
from lifelong.memory.base import MemoryEntry

QUESTION = [{"role": "user", "content": "Where is the key?"}]


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


async def post(server: Any, path: str, **body: Any) -> httpx.Response:
    async with server.client() as client:
        return await client.post(path, json=body)


def test_an_answer_names_its_version_and_is_published(server: Any) -> None:
    reply = run(post(server, "/v1/chat/completions", messages=QUESTION))
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert body["object"] == "chat.completion"
    assert body["model"] == body["lifelong"]["version"] == reply.headers["x-lifelong-version"] == "lifelong@0"
    assert body["choices"][0]["finish_reason"] in ("stop", "length")
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]

    (output,) = server.published()
    assert output.id == body["lifelong"]["output_id"]
    assert output.answer == body["choices"][0]["message"]["content"]
    assert output.version == "lifelong@0"
    assert server.kept(output.id) == output


def test_the_official_client_gets_the_same_streamed_and_whole(server: Any) -> None:
    async def ask() -> tuple[str, str, Any]:
        async with server.client() as http:
            client = openai.AsyncOpenAI(api_key="none", base_url="http://test/v1", http_client=http)
            whole = await client.chat.completions.create(model="lifelong", messages=QUESTION, max_tokens=10)
            stream = await client.chat.completions.create(
                model="lifelong", messages=QUESTION, max_tokens=10, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            return whole.choices[0].message.content or "", text, (whole.usage, chunks[-1].usage)

    whole, streamed, (usage, streamed_usage) = run(ask())
    assert whole
    assert streamed == whole
    assert streamed_usage == usage


def test_a_stream_is_framed_as_server_sent_events_and_ends(server: Any) -> None:
    reply = run(post(server, "/v1/chat/completions", messages=QUESTION, stream=True, max_tokens=5))
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in reply.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    assert chunks[-1]["lifelong"]["version"] == "lifelong@0"


def test_completions_go_on_from_raw_text(server: Any) -> None:
    reply = run(post(server, "/v1/completions", prompt="Once upon a time", max_tokens=6))
    assert reply.status_code == 200, reply.text
    assert reply.json()["object"] == "text_completion"
    assert reply.json()["usage"]["completion_tokens"] <= 6


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": QUESTION, "max_tokens": 0}, "max_tokens"),
        ({"messages": QUESTION, "max_tokens": "many"}, "max_tokens"),
        ({"messages": QUESTION, "temperature": 3}, "temperature"),
        ({"messages": QUESTION, "top_p": 0}, "top_p"),
        ({"messages": QUESTION, "n": 2}, "n"),
        ({"messages": QUESTION, "stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"messages": QUESTION, "memory": "yes"}, "memory"),
        ({"messages": QUESTION, "seed": 1.5}, "seed"),
        ({"messages": QUESTION, "stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": QUESTION, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": QUESTION, "logprobs": True}, "logprobs"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
    ],
)
def test_a_bad_field_is_named(server: Any, body: dict[str, Any], param: str) -> None:
    reply = run(post(server, "/v1/chat/completions", **body))
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param or error["param"].startswith(param + ".")
    assert error["message"]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "user": "\\udfff"}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "stop": "\\ud800"}',
        b"[" * 100_000,
        b"",
        b"null",
    ],
)
def test_what_json_allows_and_nobody_can_use_is_refused(server: Any, raw: bytes) -> None:
    async def ask() -> httpx.Response:
        async with server.client() as client:
            headers = {"content-type": "application/json"}
            return await client.post("/v1/chat/completions", content=raw, headers=headers)

    reply = run(ask())
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_fields_that_clients_send_and_we_do_not_know_are_ignored(server: Any) -> None:
    extras = {"presence_penalty": 0.5, "logit_bias": {}, "metadata": {"a": "b"}, "store": True, "what": [1]}
    parts = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "A"}]}]
    nulls = dict.fromkeys(
        ("stop", "user", "seed", "n", "temperature", "top_p", "max_tokens", "stream_options", "model")
    )
    reply = run(post(server, "/v1/chat/completions", messages=parts, **extras, **nulls))
    assert reply.status_code == 200, reply.text
    (output,) = server.published()
    assert [(message.role, message.content) for message in output.messages] == [("system", "Be kind."), ("user", "A")]


def test_stop_strings_end_the_answer(server: Any) -> None:
    whole = run(post(server, "/v1/chat/completions", messages=QUESTION, max_tokens=12)).json()
    text = whole["choices"][0]["message"]["content"]
    assert len(text) > 4
    stopped = run(post(server, "/v1/chat/completions", messages=QUESTION, max_tokens=12, stop=[text[2:4]])).json()
    assert stopped["choices"][0]["message"]["content"] == text[: text.index(text[2:4])]
    assert stopped["choices"][0]["finish_reason"] == "stop"


def test_a_seed_gives_the_same_answer_again(server: Any) -> None:
    def sample(**fields: Any) -> str:
        reply = run(post(server, "/v1/chat/completions", messages=QUESTION, temperature=1.5, top_p=0.95, **fields))
        return str(reply.json()["choices"][0]["message"]["content"])

    assert sample(seed=7) == sample(seed=7)
    assert len({sample(seed=number) for number in range(4)} | {sample()}) > 1


def test_every_error_has_openais_shape(server: Any) -> None:
    async def ask() -> list[httpx.Response]:
        async with server.client() as client:
            headers = {"content-type": "application/json"}
            return [
                await client.post("/v1/chat/completions", content=b"{not json", headers=headers),
                await client.post("/v1/chat/completions", content=b"\xff\xfe", headers=headers),
                await client.get("/v1/nothing"),
                await client.get("/v1/chat/completions"),
                await client.get("/v1/models/nobody"),
                await client.post("/v1/chat/completions", json={"messages": QUESTION, "model": "gpt-5"}),
                await client.post("/v1/chat/completions", json={"messages": QUESTION, "model": "lifelong@7"}),
                await client.post("/v1/chat/completions", json={"messages": QUESTION, "model": "lifelong@x"}),
                await client.post("/v1/feedback", json={"output_id": "none", "rating": 1}),
            ]

    replies = run(ask())
    assert [reply.status_code for reply in replies] == [400, 400, 404, 405, 404, 404, 404, 404, 404]
    for reply in replies:
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_a_prompt_without_room_is_refused_as_openai_does(server: Any) -> None:
    reply = run(post(server, "/v1/chat/completions", messages=[{"role": "user", "content": "word " * 2000}]))
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"


def test_what_the_chat_template_refuses_is_the_askers_mistake(server: Any) -> None:
    server.base.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    reply = run(post(server, "/v1/chat/completions", messages=QUESTION))
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "messages"
    assert "roles must alternate" in reply.json()["error"]["message"]


def test_while_answers_cannot_be_published_none_are_given(server: Any, monkeypatch: Any) -> None:
    def no_room() -> None:
        raise UnreachableError("1000 answers wait to be published: no broker")

    monkeypatch.setattr(server.outputs, "check_room", no_room)
    reply = run(post(server, "/v1/chat/completions", messages=QUESTION))
    assert reply.status_code == 503
    assert reply.headers["retry-after"]
    assert "no broker" in reply.json()["error"]["message"]


def test_a_failure_in_the_middle_of_a_stream_reaches_the_official_client(server: Any, monkeypatch: Any) -> None:
    begin = server.answerer.begin

    def begin_and_fail(*args: Any) -> Any:
        begun = begin(*args)
        begun.running.finish("error", "the engine is gone")
        begun.running.cancel()
        return begun

    monkeypatch.setattr(server.answerer, "begin", begin_and_fail)

    async def ask() -> None:
        async with server.client() as http:
            client = openai.AsyncOpenAI(api_key="none", base_url="http://test/v1", http_client=http)
            stream = await client.chat.completions.create(model="lifelong", messages=QUESTION, stream=True)
            async for _ in stream:
                pass

    with pytest.raises(openai.APIError, match="the engine is gone"):
        run(ask())
    (output,) = server.published()
    assert (output.finish_reason, output.error) == ("error", "the engine is gone")


def test_an_asker_that_does_not_wait_for_the_whole_answer_frees_its_place(server: Any) -> None:
    async def leave() -> None:
        body = {"messages": QUESTION, "max_tokens": 400}
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if sent:
                return {"type": "http.disconnect"}
            sent = True
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

        async def send(message: Any) -> None:
            pass

        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/chat/completions", "scheme": "http",
            "query_string": b"", "headers": [(b"content-type", b"application/json")], "server": ("test", 80),
            "root_path": "",
        }  # fmt: skip
        await server.http(scope, receive, send)

    run(leave())
    (output,) = server.published()
    assert output.error == "cancelled by the asker"
    assert output.completion_tokens < 400
    assert server.engine.num_requests == 0


def test_too_many_requests_are_told_to_come_back(server: Any) -> None:
    async def ask() -> list[httpx.Response]:
        async with server.client() as client:
            calls = [
                client.post("/v1/chat/completions", json={"messages": QUESTION, "max_tokens": 60}) for _ in range(90)
            ]
            return await asyncio.gather(*calls)

    replies = run(ask())
    refused = [reply for reply in replies if reply.status_code == 429]
    assert refused
    assert all(reply.headers["retry-after"] for reply in refused)
    assert all(reply.status_code in (200, 429) for reply in replies)


def test_memory_is_used_and_named_and_kept_from_others(server: Any) -> None:
    entry = MemoryEntry(
        id="0-1-0", event_id="e1", text="Where is the key? Under the mat.", kind="correction", event_time=1.0,
        question="Where is the key?", answer="Under the mat.", user="ann",
    )  # fmt: skip
    server.memory.put([entry])
    server.index.refresh()
    ann = run(post(server, "/v1/chat/completions", messages=QUESTION, user="ann")).json()
    bob = run(post(server, "/v1/chat/completions", messages=QUESTION, user="bob")).json()
    off = run(post(server, "/v1/chat/completions", messages=QUESTION, user="ann", memory=False)).json()
    assert [memory["event_id"] for memory in ann["lifelong"]["memories"]] == ["e1"]
    assert bob["lifelong"]["memories"] == off["lifelong"]["memories"] == []
    assert ann["usage"]["prompt_tokens"] > off["usage"]["prompt_tokens"]


def test_feedback_by_id_becomes_an_event_that_stands_alone(server: Any) -> None:
    body = run(post(server, "/v1/chat/completions", messages=QUESTION, user="ann")).json()
    server.outputs.flush()
    reply = run(post(server, "/v1/feedback", output_id=body["lifelong"]["output_id"], correction="Under the mat."))
    assert reply.status_code == 202, reply.text
    (record,) = server.broker.records("lifelong.events.v1")
    event = decode_event(record.value, record.headers, record_time=0, max_bytes=10_000)
    assert event.id == reply.json()["event_id"]
    assert isinstance(event.data, Feedback)
    assert event.data.correction == "Under the mat."
    assert event.data.answer == body["choices"][0]["message"]["content"]
    assert event.data.user == "ann"
    assert list(msgspec.to_builtins(event.data.messages)) == QUESTION


def test_feedback_can_follow_at_once(server: Any, monkeypatch: Any) -> None:
    """The answer is known here before it is anywhere else."""
    monkeypatch.setattr(server.store, "put", lambda outputs: (_ for _ in ()).throw(UnreachableError("no Redis")))
    body = run(post(server, "/v1/chat/completions", messages=QUESTION)).json()
    reply = run(post(server, "/v1/feedback", output_id=body["lifelong"]["output_id"], rating=1))
    assert reply.status_code == 202, reply.text


def test_feedback_needs_something_to_say(server: Any) -> None:
    reply = run(post(server, "/v1/feedback", output_id="x"))
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "correction"


def test_health_ready_and_metrics(server: Any) -> None:
    async def look() -> tuple[httpx.Response, ...]:
        async with server.client() as client:
            return tuple([await client.get(path) for path in ("/health", "/ready", "/metrics")])

    health, ready, metrics = run(look())
    assert health.status_code == ready.status_code == 200
    assert "lifelong_generations 1.0" in metrics.text
    server.health.ready = False
    assert run(look())[1].status_code == 503


class TestWithSmallBodies:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, inference=InferenceSettings(max_body_bytes=500))

    def test_a_large_body_is_refused(self, server: Any) -> None:
        large = [{"role": "user", "content": "x" * 500}]
        reply = run(post(server, "/v1/chat/completions", messages=large))
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "request_too_large"

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 100

        async def ask() -> httpx.Response:
            async with server.client() as client:
                headers = {"content-type": "application/json"}
                return await client.post("/v1/chat/completions", content=chunks(), headers=headers)

        reply = run(ask())
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "request_too_large"
        assert run(post(server, "/v1/chat/completions", messages=QUESTION)).status_code == 200


class TestWithKeys:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, inference=InferenceSettings(api_keys=("secret",)))

    def test_a_key_is_needed_where_one_is_set(self, server: Any) -> None:
        async def ask() -> list[int]:
            async with server.client() as client:
                replies = [
                    await client.get("/v1/models"),
                    await client.get("/v1/models", headers={"Authorization": "Bearer wrong"}),
                    await client.get("/v1/models", headers={"Authorization": "Bearer secret"}),
                    await client.get("/health"),
                ]
                assert replies[0].json()["error"]["type"] == "authentication_error"
                return [reply.status_code for reply in replies]

        assert run(ask()) == [401, 401, 200, 200]
