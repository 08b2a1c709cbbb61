from __future__ import annotations

import msgspec
import pytest
from tests.unit.collector.making import NOW, make_event, make_handler, outcomes, record_of

from lifelong.collector.config import CollectorSettings
from lifelong.collector.dedupe import Claim, Duplicate
from lifelong.collector.handler import Handler
from lifelong.contracts import topics
from lifelong.contracts.events import Dialogue, Document, Fact, Feedback, Forget, Message, Observation
from lifelong.contracts.samples import SampleRecord
from lifelong.errors import DecodeError, UnreachableError
from lifelong.stream.base import Record

COVERED = {0: 0, 1: 0}
TEXT = " ".join(f"word{i * 7919 % 1000}" for i in range(80)) + "."
FACT = Fact(subject="France", relation="capital", object="Paris")


def raw(value: bytes | None, *headers: tuple[str, bytes], offset: int = 0, key: bytes | None = None) -> Record:
    return Record(topics.EVENTS.name, 0, offset, key, value, headers, NOW)


def test_each_record_is_accounted_for_without_a_gap() -> None:
    records = [
        record_of(make_event(FACT, f"e{i}"), offset, partition)
        for i, (offset, partition) in enumerate(
            # Offsets are missing where transactions left their marks.
            [(5, 0), (0, 1), (6, 0), (9, 0), (3, 1)]
        )
    ]
    handled = make_handler().handle(records, {0: 4, 1: 0})
    covers = [(one.record.source_partition, one.record.from_offset, one.record.to_offset) for one in handled]
    assert covers == [(0, 4, 6), (1, 0, 1), (0, 6, 7), (0, 7, 10), (1, 1, 4)]
    assert outcomes(handled) == ["sample"] * 5


@pytest.mark.parametrize(
    ("record", "reason", "type_name"),
    [
        (raw(None), "empty", "unknown"),
        (raw(b""), "empty", "unknown"),
        (raw(b"\x00\x01 garbage"), "not-json", "unknown"),
        (raw(b"\xff\xfe"), "not-utf8", "unknown"),
        (raw(b'{"text": "no event"}'), "not-cloudevents", "unknown"),
        (raw(b"x" * (1024 * 1024 + 1)), "too-large", "unknown"),
        (raw(b"{}", key=b"k" * (1024 * 1024)), "too-large", "unknown"),
        (raw(b"{}", ("trace", b"h" * (1024 * 1024))), "too-large", "unknown"),
        (record_of(make_event(Document(text="!"))), "too-short", "lifelong.document"),
        (record_of(make_event(Document(text=TEXT * 400))), "repetitive", "lifelong.document"),
        (
            record_of(make_event(Document(text="€" * 4 + "letters. " * 3 + "x" * 130_000))),
            "too-long",
            "lifelong.document",
        ),
        (record_of(make_event(Forget())), "bad-data", "lifelong.forget"),
    ],
)
def test_refusals_have_a_reason(record: Record, reason: str, type_name: str) -> None:
    (one,) = make_handler().handle([record], COVERED)
    assert one.record.outcome == "dead-letter"
    assert one.refusal is not None
    assert one.refusal.reason == reason
    assert one.record.detail is not None
    assert one.record.detail.startswith(f"{reason}: ")
    assert (one.type, one.record.samples, one.memory) == (type_name, (), ())


def test_a_mistake_of_ours_costs_one_event_and_not_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr("lifelong.collector.scrub.to_text", fails)
    records = [record_of(make_event(Document(text=TEXT), "a"), 0), record_of(make_event(FACT, "b"), 1)]
    bad, good = make_handler().handle(records, COVERED)
    assert bad.record.detail == "failed: ZeroDivisionError: on purpose"
    assert good.record.outcome == "sample"


def test_expiry_goes_by_the_time_of_the_record() -> None:
    event = make_event(FACT, expirytime=NOW + 10)
    handler = make_handler()
    in_time = record_of(event, 0, time=NOW + 10)
    late = record_of(msgspec.structs.replace(event, id="f"), 1, time=NOW + 11)
    handled = handler.handle([in_time, late], COVERED)
    assert outcomes(handled) == ["sample", "expired"]
    assert handled[0].memory[0].expires == NOW + 10
    assert handled[1].memory == ()


def test_the_same_event_again_is_a_duplicate_of_any_type() -> None:
    handler = make_handler()
    records = [
        record_of(make_event(FACT), 0),
        record_of(make_event(FACT), 1),
        record_of(make_event(FACT), 0, 1),
        record_of(msgspec.structs.replace(make_event(FACT), source="/other"), 2),
    ]
    handled = handler.handle(records, COVERED)
    assert [one.record.detail for one in handled] == [None, "the same event as 0-0", "the same event as 0-0", None]


def test_contents_are_compared_for_documents_and_dialogues_only() -> None:
    chat = (Message(role="user", content="q"), Message(role="assistant", content="a"))
    data = [
        Document(text=TEXT),
        Document(text=f"<p>{TEXT}</p>"),
        Document(text=TEXT.replace("word0 ", "other ")),
        Document(text=TEXT, user="ada"),
        Dialogue(messages=chat),
        Dialogue(messages=chat, task="other"),
        FACT,
        FACT,
        Feedback(messages=chat[:1], correction="c"),
        Feedback(messages=chat[:1], correction="c"),
        Observation(task="t", input="i", label="l"),
        Observation(task="t", input="i", label="l"),
    ]
    records = [record_of(make_event(one, f"e{i}"), i) for i, one in enumerate(data)]
    found = [one.record.detail for one in make_handler().handle(records, COVERED)]
    assert found[:6] == [
        None,
        "the same content as 0-0",
        "nearly the same content as 0-0",
        None,
        None,
        "the same content as 0-4",
    ]
    assert found[6:] == [None] * 6


def test_what_was_refused_may_be_sent_again_once_it_is_mended() -> None:
    handler = make_handler(CollectorSettings(max_samples_per_event=1, max_sample_chars=200))
    records = [
        record_of(make_event(Document(text=TEXT)), 0),
        record_of(make_event(Document(text="!")), 1),
        record_of(make_event(FACT, expirytime=NOW - 1), 2),
        record_of(make_event(Document(text="This time it is right.")), 3),
    ]
    assert outcomes(handler.handle(records, COVERED)) == ["dead-letter", "dead-letter", "expired", "sample"]


def test_halves_of_observations_meet_in_one_poll_or_in_two() -> None:
    first = Observation(task="t", input="in", observation_id="o")
    second = Observation(task="t", label="out", observation_id="o")
    records = [record_of(make_event(first, "a"), 0), record_of(make_event(second, "b"), 1)]
    together = make_handler().handle(records, COVERED)
    handler = make_handler()
    apart = handler.handle(records[:1], COVERED) + handler.handle(records[1:], {0: 1})
    assert [one.record for one in together] == [one.record for one in apart]
    assert outcomes(together) == ["memory-only", "sample"]
    assert together[1].record.samples[0].event_id == "a"


def test_an_event_may_point_to_its_data() -> None:
    def fetch(reference: str) -> bytes:
        if reference != "s3://bucket/x":
            raise DecodeError("dataref-failed", reference)
        return b'{"text": "It was far away."}'

    def record(reference: bytes) -> Record:
        attributes = {"id": b"e", "source": b"/s", "specversion": b"1.0", "type": b"lifelong.document"}
        headers = [("ce_" + name, text) for name, text in attributes.items()]
        return raw(None, *headers, ("ce_dataref", reference))

    handler = make_handler(fetch=fetch)
    (one,) = handler.handle([record(b"s3://bucket/x")], COVERED)
    assert one.record.samples[0].text == "It was far away."
    (one,) = handler.handle([record(b"s3://bucket/y")], COVERED)
    assert one.refusal is not None
    assert one.refusal.reason == "dataref-failed"
    (one,) = make_handler().handle([record(b"s3://bucket/x")], COVERED)
    assert one.refusal is not None
    assert one.refusal.reason == "dataref-refused"


def test_masks_are_counted_per_call() -> None:
    handler = make_handler()
    card = Document(text="My card is 4111 1111 1111 1111.")
    (one,) = handler.handle([record_of(make_event(card))], COVERED)
    assert one.record.samples[0].text == one.memory[0].text == "My card is [CARD]."
    assert handler.masked == {"card": 1}
    handler.handle([], COVERED)
    assert handler.masked == {}


def test_nothing_is_claimed_twice_when_a_store_fails_in_between() -> None:
    class FailsOnce:
        def __init__(self) -> None:
            self.inner = make_handler()._seen
            self.fails = True

        def first_seen(self, claims: list[Claim]) -> list[Duplicate | None]:
            verdicts = self.inner.first_seen(claims)
            if self.fails:
                self.fails = False
                raise UnreachableError("the answer was lost")
            return verdicts

    handler = make_handler(seen=FailsOnce())
    records = [record_of(make_event(FACT), 0), record_of(make_event(FACT), 1)]
    with pytest.raises(UnreachableError):
        handler.handle(records, COVERED)
    assert outcomes(handler.handle(records, COVERED)) == ["sample", "duplicate"]


def test_accounts_are_what_the_contract_says() -> None:
    handler: Handler = make_handler()
    (one,) = handler.handle([record_of(make_event(FACT))], COVERED)
    assert msgspec.json.decode(msgspec.json.encode(one.record), type=SampleRecord) == one.record
