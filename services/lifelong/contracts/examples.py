"""One example of every message: for the documentation, for trying things out, and for tests."""

from __future__ import annotations

from lifelong.contracts.codec import type_name
from lifelong.contracts.events import (
    Dialogue,
    Document,
    Event,
    EventData,
    Fact,
    Feedback,
    Forget,
    Interaction,
    Message,
    Observation,
    Preference,
    Probe,
)
from lifelong.contracts.requests import Output, Request, UsedMemory
from lifelong.contracts.samples import Sample, SampleRecord
from lifelong.contracts.versions import Batch, FileEntry, Manifest, Verdict, VersionEvent

_QUESTION = Message(role="user", content="Which plan includes priority support?")
_WRONG = "The Basic plan."
_RIGHT = "Since May, priority support is part of every plan."
_TIME = 1_714_979_289.5  # 2024-05-06T07:08:09.5Z
_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

EVENT_DATA: tuple[EventData, ...] = (
    Document(text="Since May, priority support is part of every plan.", title="Plans", url="https://example.com/plans"),
    Dialogue(messages=(_QUESTION, Message(role="assistant", content=_RIGHT)), user="ada"),
    Feedback(messages=(_QUESTION,), answer=_WRONG, correction=_RIGHT, rating=-1.0, output_id="out-1", user="ada"),
    Preference(messages=(_QUESTION,), chosen=_RIGHT, rejected=_WRONG),
    Interaction(user="ada", item="plan-pro", action="buy", value=29.0, item_text="The Pro plan, billed monthly"),
    Observation(task="support-topic", input="My invoice is wrong", label="billing", observation_id="ticket-7"),
    Fact(subject="the Pro plan", relation="price", object="29 euros a month", question="What does the Pro plan cost?"),
    Forget(event_ids=("event-1", "event-2")),
    Probe(question=_QUESTION.content, answer=_RIGHT, task="support"),
)


def event(data: EventData) -> Event:
    """The data in an event, with every attribute set."""
    return Event(
        id="event-1",
        source="/shop/support",
        type=type_name(data),
        data=data,
        time=_TIME,
        subject="ticket-7",
        partitionkey="ada",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        expirytime=_TIME + 86_400,
    )


SAMPLE_RECORD = SampleRecord(
    source_topic="lifelong.events.v1",
    source_partition=2,
    from_offset=41,
    to_offset=42,
    outcome="sample",
    samples=(
        Sample(
            id="2-41-0",
            event_id="event-1",
            event_time=_TIME,
            task="feedback",
            messages=(_QUESTION, Message(role="assistant", content=_RIGHT)),
            rejected=_WRONG,
            rating=-1.0,
            until_known=True,
            user="ada",
            num_chars=88,
        ),
    ),
    event_id="event-1",
)

REQUEST = Request(id="req-1", messages=(_QUESTION,), max_tokens=64, user="ada")

OUTPUT = Output(
    id="out-1",
    request_id="req-1",
    version="lifelong@17",
    base="smollm2-135m-instruct",
    messages=(_QUESTION,),
    answer=_RIGHT,
    finish_reason="stop",
    created=_TIME + 60,
    prompt_tokens=38,
    completion_tokens=12,
    memories=(UsedMemory(id="mem-1", event_id="event-1", score=0.75),),
    user="ada",
    latency_seconds=0.5,
    newest_event_time=_TIME,
)

VERDICT = Verdict(
    accepted=True, reason="nothing that was known got worse", scores={"held_out_after": 2.25, "held_out_before": 2.5}
)

VERSION_EVENT = VersionEvent(
    line="lifelong",
    number=17,
    kind="active",
    change="promoted",
    time=_TIME + 30,
    parent=16,
    weights_sha256=_HASH,
    verdict=VERDICT,
    counts={"held_out": 12, "trained": 240},
    newest_event_time=_TIME,
    num_samples=8,
)

MANIFEST = Manifest(
    line="lifelong",
    number=17,
    parent=16,
    kind="active",
    base="smollm2-135m-instruct",
    base_sha256=_HASH,
    epoch=3,
    created=_TIME + 30,
    weights_sha256=_HASH,
    files={"adapter.safetensors": FileEntry(sha256=_HASH, num_bytes=9_800_000)},
    folder="00000017-e3-5f2a9c",
    watermarks={0: 40, 1: 38, 2: 42, 3: 44},
    positions={0: 40, 1: 38, 2: 42, 3: 44},
    counts={"held_out": 12, "trained": 240},
    batches=(Batch(samples=("2-41-0",), replayed=("0-3-0", "1-17-0"), num_steps=6, trigger="age"),),
    tensors={"layers.29.self_attn.q_proj.lora_A": _HASH},
    metrics={"train_loss": 0.25},
    verdict=VERDICT,
    newest_event_time=_TIME,
    settings={"seed": "0"},
)
