from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import msgspec
import openai
import pytest

from lifelong.contracts.codec import decode_event
from lifelong.contracts.events import Feedback
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
    ],
)
def test_a_bad_field_is_named(server: Any, body: dict[str, Any], param: str) -> None:
    reply = run(post(server, "/v1/chat/completions", **body))
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]


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
