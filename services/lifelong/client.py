"""For applications: publish what happened, ask the model, say what you thought of the answer."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import httpx
import msgspec

from lifelong.config.shared import KafkaSettings
from lifelong.contracts import topics
from lifelong.contracts.codec import decode, encode_event, type_name
from lifelong.contracts.events import Event, EventData, Fact, Feedback, Message, Observation
from lifelong.contracts.requests import Output, UsedMemory
from lifelong.errors import LifelongError, OverloadedError
from lifelong.stream.kafka import KafkaSink, KafkaSource


class RequestError(LifelongError):
    """The server refused a request; ``status`` is the HTTP status, the message is the server's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status


class Answer(msgspec.Struct, frozen=True):
    text: str
    version: str
    """``line@number``: exactly these weights gave the answer."""
    output_id: str
    messages: tuple[Message, ...]
    """The conversation up to the question."""
    memories: tuple[UsedMemory, ...] = ()
    newest_event_time: float | None = None
    """Seconds since 1970: time of the newest event that the version has learned."""
    user: str | None = None


Question = str | Sequence[Message]


class Client:
    """One application's connection. Safe to share between threads, except ``outputs``. Connects when first used."""

    def __init__(
        self,
        *,
        kafka: str | KafkaSettings = "127.0.0.1:9092",
        http: str = "http://127.0.0.1:8000",
        source: str = "lifelong.client",
        api_key: str | None = None,
        timeout_seconds: float = 120.0,
    ) -> None:
        """
        Args:
            kafka: ``host:port[,host:port]``, or all settings where security is needed.
            source: who publishes, the CloudEvents attribute; event ids are unique within a source.
        """
        self._kafka = KafkaSettings(bootstrap_servers=kafka) if isinstance(kafka, str) else kafka
        self._source = source
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=http, headers=headers, timeout=timeout_seconds)
        self._sink: KafkaSink | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def publish(
        self,
        *data: EventData,
        key: str | None = None,
        event_time: float | None = None,
        expires: float | None = None,
        subject: str | None = None,
    ) -> list[str]:
        """Publish events, in this order for one key, and wait until Kafka has them.

        Args:
            key: the ordering unit. Without it: the user, the task, or the subject of the fact.
            event_time: seconds since 1970 at which it happened; now, if not given.
            expires: seconds since 1970 after which the events are not worth learning.

        Returns:
            the ids of the events.
        """
        if self._sink is None:
            self._sink = KafkaSink(self._kafka)
        ids = []
        for item in data:
            event = Event(
                id=str(uuid.uuid4()),
                source=self._source,
                type=type_name(item),
                data=item,
                time=time.time() if event_time is None else event_time,
                subject=subject,
                expirytime=expires,
            )
            unit = key if key is not None else _ordering_unit(item)
            value, headers = encode_event(event)
            self._sink.send(topics.EVENTS.name, value, key=unit.encode() if unit else None, headers=headers)
            ids.append(event.id)
        self._sink.flush()
        return ids

    def ask(
        self,
        question: Question,
        *,
        model: str = "lifelong",
        max_tokens: int = 128,
        temperature: float = 0.0,
        memory: bool = True,
        user: str | None = None,
    ) -> Answer:
        """Ask the live version, or with ``model="lifelong@17"`` that one.

        Raises:
            RequestError: the server refused it, OverloadedError: try again later.
        """
        messages = _messages(question)
        reply = self._post(
            "/v1/chat/completions",
            {
                "model": model,
                "messages": messages,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "memory": memory,
                "user": user,
            },
        )
        ours = reply["lifelong"]
        return Answer(
            text=reply["choices"][0]["message"]["content"],
            version=ours["version"],
            output_id=ours["output_id"],
            messages=messages,
            memories=msgspec.convert(ours["memories"], tuple[UsedMemory, ...]),
            newest_event_time=ours.get("newest_event_time"),
            user=user,
        )

    def feedback(self, answer: Answer | Question, *, correction: str | None = None, rating: float | None = None) -> str:
        """Say what an answer should have been, how good it was (-1 to 1), or both. Returns the event id."""
        if correction is None and rating is None:
            raise ValueError("feedback needs a correction, a rating, or both")
        if isinstance(answer, Answer):
            data = Feedback(
                messages=answer.messages,
                answer=answer.text,
                correction=correction,
                rating=rating,
                output_id=answer.output_id,
                user=answer.user,
            )
        else:
            data = Feedback(messages=_messages(answer), correction=correction, rating=rating)
        return self.publish(data)[0]

    def outputs(self, *, from_beginning: bool = False, idle_seconds: float | None = None) -> Iterator[Output]:
        """Every answer the system gives, to anybody, as it is given.

        Args:
            idle_seconds: end when nothing came for so long; ``None``: never.
        """
        source = KafkaSource(self._kafka, [topics.OUTPUTS.name])
        try:
            source.seek({} if from_beginning else source.end_positions())
            last = time.monotonic()
            while idle_seconds is None or time.monotonic() - last < idle_seconds:
                for record in source.poll(0.5):
                    last = time.monotonic()
                    yield decode(record.value, Output)
        finally:
            source.close()

    def health(self) -> dict[str, Any]:
        """What the inference server says of itself: its live version among others."""
        reply: dict[str, Any] = self._http.get("/health").json()
        return reply

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = self._http.post(path, content=msgspec.json.encode(body), headers={"Content-Type": "application/json"})
        if reply.status_code == 429:
            raise OverloadedError(_error_message(reply))
        if reply.status_code >= 400:
            raise RequestError(reply.status_code, _error_message(reply))
        answer: dict[str, Any] = reply.json()
        return answer


def _messages(question: Question) -> tuple[Message, ...]:
    return (Message("user", question),) if isinstance(question, str) else tuple(question)


def _ordering_unit(data: EventData) -> str | None:
    if isinstance(data, Fact):
        return data.subject
    if isinstance(data, Observation):
        return data.task
    return data.user


def _error_message(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return reply.text
