"""For applications: publish what happened, ask the model, say what you thought of the answer."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Annotated, Any, TypeVar

import httpx
import msgspec
from msgspec import Meta

from lifelong.config.shared import KafkaSettings
from lifelong.contracts import topics
from lifelong.contracts.codec import decode, decode_event, encode_event, type_name
from lifelong.contracts.events import TYPE_OF_DATA, Event, EventData, Fact, Feedback, Message, Observation, Probe
from lifelong.contracts.requests import Output, UsedMemory
from lifelong.errors import DecodeError, OverloadedError, RequestError, UnreachableError
from lifelong.stream.kafka import KafkaSink, KafkaSource

T = TypeVar("T")

PROBES_KEY = "lifelong.probes"
"""Of all probes, so that whoever takes one away with this key comes after whoever added it."""

_POLL_SECONDS = 0.5
# Loopback never goes through a proxy, whatever the environment says.
_DIRECT: dict[str, None] = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}


class Answer(msgspec.Struct, frozen=True):
    """What the model said, and what it said it from. Hand it to ``Client.feedback`` as it is."""

    text: str
    version: str
    """``line@number``: exactly these weights gave the answer."""
    output_id: str
    """Names this answer on the outputs topic and in feedback."""
    messages: tuple[Message, ...]
    """The conversation up to the question."""
    memories: tuple[UsedMemory, ...] = ()
    """Entries of memory that were put before the model."""
    newest_event_time: float | None = None
    """Seconds since 1970: time of the newest event that the version has learned."""
    user: str | None = None


class _Message(msgspec.Struct, frozen=True):
    content: str


class _Choice(msgspec.Struct, frozen=True):
    message: _Message


class _Ours(msgspec.Struct, frozen=True):
    version: str
    output_id: str
    memories: tuple[UsedMemory, ...] = ()
    newest_event_time: float | None = None


class _Reply(msgspec.Struct, frozen=True):
    """What of the answer of ``/v1/chat/completions`` matters here."""

    choices: Annotated[tuple[_Choice, ...], Meta(min_length=1)]
    lifelong: _Ours


Question = str | Sequence[Message]
"""One question, or a conversation whose last turn is the question."""


class Client:
    """One application's connection. Safe to share between threads. Connects when first used.

    Every method may raise UnreachableError: Kafka or the server does not answer; the same call may be made again.
    """

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
            http: base URL of the inference server, without ``/v1``.
            source: who publishes, the CloudEvents attribute; event ids are unique within a source.
            api_key: one of the server's, if it asks for one.
            timeout_seconds: for one request over HTTP.
        """
        self._kafka = KafkaSettings(bootstrap_servers=kafka) if isinstance(kafka, str) else kafka
        self._source = source
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=http, headers=headers, timeout=timeout_seconds, mounts=_DIRECT)
        self._sink: KafkaSink | None = None
        # One publisher at a time: a flush waits for, and hears of, the records of all threads.
        self._publishing = threading.Lock()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()
        with self._publishing:
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
            key: the ordering unit. Without it: the user, the task of an observation, or the subject of a fact. Give
                a ``Forget`` the key that its events had, so that it comes after them.
            event_time: seconds since 1970 at which it happened; now, if not given.
            expires: seconds since 1970 after which the events are not worth learning.
            subject: what the events are about, the CloudEvents attribute.

        Returns:
            the ids of the events, in the order given.

        Raises:
            ValueError: one of the events is not what its type allows; then none was published.
            UnreachableError, StreamError: each of the events was published once, several times or not at all.
        """
        ids, records = [], []
        for item in data:
            if type(item) not in TYPE_OF_DATA:
                kinds = ", ".join(kind.__name__ for kind in TYPE_OF_DATA)
                raise ValueError(f"{item!r} is no event: expected one of {kinds} (lifelong.contracts.events)")
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
            records.append((_encoded(event), unit.encode() if unit else None))
            ids.append(event.id)
        with self._publishing:
            if self._sink is None:
                self._sink = KafkaSink(self._kafka)
            for (value, headers), record_key in records:
                self._sink.send(topics.EVENTS.name, value, key=record_key, headers=headers)
            self._sink.flush()
        return ids

    def ask(
        self,
        question: Question,
        *,
        model: str | None = None,
        max_tokens: int = 128,
        temperature: float = 0.0,
        memory: bool = True,
        user: str | None = None,
    ) -> Answer:
        """Ask the model.

        Args:
            model: a line, or one version as ``line@number``; without it the live version of the server's line. The
                student's line is ``line-student``.
            max_tokens: of the answer.
            temperature: 0 always takes the most likely token; at most 2.
            memory: whether memory may be looked up for this answer.
            user: who asks: memories that belong to somebody are given to nobody else.

        Raises:
            RequestError: the server refused it. OverloadedError: try again later.
        """
        messages = _messages(question)
        body = {
            "model": model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "memory": memory,
            "user": user,
        }
        got = self._request(
            "POST",
            "/v1/chat/completions",
            content=msgspec.json.encode(body),
            headers={"Content-Type": "application/json"},
        )
        if got.status_code == 429:
            raise OverloadedError(_error_message(got))
        if got.status_code != 200:
            raise RequestError(got.status_code, _error_message(got))
        reply = _decoded(got, _Reply)
        return Answer(
            text=reply.choices[0].message.content,
            version=reply.lifelong.version,
            output_id=reply.lifelong.output_id,
            messages=messages,
            memories=reply.lifelong.memories,
            newest_event_time=reply.lifelong.newest_event_time,
            user=user,
        )

    def feedback(self, answer: Answer | Question, *, correction: str | None = None, rating: float | None = None) -> str:
        """Say what an answer should have been, how good it was, or both.

        Args:
            answer: as ``ask`` gave it; or only the question, to say what its answer is.
            rating: from -1, useless, to 1, perfect.

        Returns:
            the id of the event.

        Raises:
            ValueError: neither correction nor rating, a rating out of range, or one without an answer.
        """
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
        elif correction is None:
            raise ValueError("a rating needs the answer that it is about")
        else:
            data = Feedback(messages=_messages(answer), correction=correction, rating=rating)
        return self.publish(data)[0]

    def outputs(self, *, from_beginning: bool = False, idle_seconds: float | None = None) -> Iterator[Output]:
        """Every answer the system gives from this call on, to anybody, as it is given.

        Args:
            from_beginning: all answers that the topic still has before those to come.
            idle_seconds: end when nothing came for so long; ``None``: never.

        Raises:
            MissingPartError: there is no such topic. DecodeError: a record is no output.
        """
        source = KafkaSource(self._kafka, [topics.OUTPUTS.name])
        try:
            # Now, not when the first answer is asked for: what is answered in between should not be missed.
            source.seek({} if from_beginning else source.end_positions())
        except BaseException:
            source.close()
            raise
        return _follow(source, idle_seconds)

    def health(self) -> dict[str, Any]:
        """What the inference server says of itself: its live version among others.

        Raises:
            RequestError: what answers is no inference server.
        """
        return _decoded(self._request("GET", "/health"), dict[str, Any])

    def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **content)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise UnreachableError(f"{self._http.base_url} does not answer: {reason}") from error


def _follow(source: KafkaSource, idle_seconds: float | None) -> Iterator[Output]:
    try:
        quiet_since = time.monotonic()
        while idle_seconds is None or time.monotonic() - quiet_since < idle_seconds:
            records = source.poll(_POLL_SECONDS if idle_seconds is None else min(_POLL_SECONDS, idle_seconds))
            for record in records:
                yield decode(record.value, Output)
            if records:
                # After them: what the caller did meanwhile was not quiet.
                quiet_since = time.monotonic()
    finally:
        source.close()


def _encoded(event: Event) -> tuple[bytes, list[tuple[str, bytes]]]:
    """As the collector will read it, or ValueError here and now instead of a dead letter there and then."""
    value, headers = encode_event(event)
    try:
        decode_event(value, headers, record_time=event.time, max_bytes=topics.MAX_MESSAGE_BYTES)
    except DecodeError as error:
        raise ValueError(f"{event.type}: {error.detail}") from error
    return value, headers


def _messages(question: Question) -> tuple[Message, ...]:
    return (Message("user", question),) if isinstance(question, str) else tuple(question)


def _ordering_unit(data: EventData) -> str | None:
    if isinstance(data, Fact):
        return data.subject
    if isinstance(data, Observation):
        return data.task
    if isinstance(data, Probe):
        return PROBES_KEY
    return data.user


def _error_message(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return reply.text or reply.reason_phrase


def _decoded(reply: httpx.Response, to: type[T]) -> T:
    try:
        return msgspec.json.decode(reply.content, type=to)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(
            reply.status_code, f"what answers at {reply.url} is no inference server of ours: {error}"
        ) from error
