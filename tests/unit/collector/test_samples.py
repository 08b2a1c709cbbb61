from __future__ import annotations

from typing import Any

import pytest
from tests.unit.collector.making import NOW, make_event

from lifelong.collector.config import CollectorSettings
from lifelong.collector.joins import Half
from lifelong.collector.samples import Made, make
from lifelong.contracts.events import (
    Dialogue,
    Document,
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
from lifelong.contracts.samples import Sample
from lifelong.errors import DecodeError
from lifelong.memory.base import MemoryEntry

SETTINGS = CollectorSettings(max_sample_chars=100, max_samples_per_event=3)
QUESTION = Message(role="user", content="Which plan?")


def answer(text: str) -> Message:
    return Message(role="assistant", content=text)


def made(data: EventData, half: Half | None = None, **attributes: Any) -> Made:
    return make(make_event(data, **attributes), "1-7", SETTINGS, half)


def sample(**fields: Any) -> Sample:
    fields = {"id": "1-7-0", "event_id": "e", "event_time": NOW, "language": "und-Latn", **fields}
    return Sample(**fields)


def entry(text: str, kind: Any, **fields: Any) -> MemoryEntry:
    fields = {"id": "1-7-0", "event_id": "e", "event_time": NOW, **fields}
    return MemoryEntry(text=text, kind=kind, **fields)


def test_a_document_is_cut_and_every_piece_is_remembered_with_its_title() -> None:
    first, second = "one " * 20 + "end.", "two " * 20 + "end."
    found = made(Document(text=f"{first}\n\n{second}", title="Title", user="ada", task="news"))
    texts = [f"Title\n\n{first}", second]
    assert found == Made(
        "sample",
        tuple(
            sample(id=f"1-7-{i}", text=text, task="news", user="ada", num_chars=len(text))
            for i, text in enumerate(texts)
        ),
        (
            entry(texts[0], "document", user="ada"),
            entry(f"Title\n\n{second}", "document", id="1-7-1", user="ada"),
        ),
    )


def test_a_document_of_too_many_pieces_is_refused() -> None:
    made(Document(text="x" * 300))
    with pytest.raises(DecodeError) as caught:
        made(Document(text="x" * 301))
    assert caught.value.reason == "too-long"


def test_a_dialogue_is_one_sample_and_each_exchange_a_memory() -> None:
    system = Message(role="system", content="Be kind.")
    messages = (system, QUESTION, answer("Pro."), Message(role="user", content="Sure?"), answer("Yes."))
    assert made(Dialogue(messages=messages, user="ada")) == Made(
        "sample",
        (sample(messages=messages, task="dialogue", user="ada", num_chars=32),),
        (
            entry("Which plan?\nPro.", "dialogue", question="Which plan?", answer="Pro.", user="ada"),
            entry("Sure?\nYes.", "dialogue", id="1-7-1", question="Sure?", answer="Yes.", user="ada"),
        ),
    )


def test_a_correction_is_to_be_known_and_remembered() -> None:
    data = Feedback(messages=(QUESTION,), answer="Basic.", correction="Pro.", rating=-1.0, user="ada")
    assert made(data, traceparent="00-trace", expirytime=NOW + 60) == Made(
        "sample",
        (
            sample(
                messages=(QUESTION, answer("Pro.")),
                task="feedback",
                user="ada",
                rejected="Basic.",
                rating=-1.0,
                until_known=True,
                num_chars=15,
                traceparent="00-trace",
            ),
        ),
        (
            entry(
                "Which plan?\nPro.",
                "correction",
                question="Which plan?",
                answer="Pro.",
                user="ada",
                expires=NOW + 60,
            ),
        ),
    )


def test_a_correction_that_confirms_rejects_nothing() -> None:
    assert made(Feedback(messages=(QUESTION,), answer="Pro.", correction="Pro.")).samples[0].rejected is None


def test_a_liked_answer_counts_by_how_much_it_was_liked() -> None:
    assert made(Feedback(messages=(QUESTION,), answer="Pro.", rating=0.5)) == Made(
        "sample",
        (sample(messages=(QUESTION, answer("Pro.")), task="feedback", rating=0.5, weight=0.5, num_chars=15),),
    )


@pytest.mark.parametrize("rating", [-1.0, 0.0, 0.4])
def test_a_disliked_answer_is_nothing_to_imitate(rating: float) -> None:
    assert made(Feedback(messages=(QUESTION,), answer="Basic.", rating=rating)) == Made(
        "sample",
        (sample(messages=(QUESTION,), task="feedback", rejected="Basic.", rating=rating, weight=0.0, num_chars=11),),
    )


def test_a_preference_has_both_answers() -> None:
    assert made(Preference(messages=(QUESTION,), chosen="Pro.", rejected="Basic.")) == Made(
        "sample",
        (sample(messages=(QUESTION, answer("Pro.")), task="preference", rejected="Basic.", num_chars=15),),
    )


@pytest.mark.parametrize(
    ("data", "question", "item"),
    [
        (Interaction(user="ada", item="i7"), "User ada, action: view. Which item?", "i7"),
        (
            Interaction(user="ada", item="i7", action="rate", value=4.5, item_text="Espresso machine"),
            "User ada, action: rate, value: 4.5. Which item?",
            "i7: Espresso machine",
        ),
    ],
)
def test_an_interaction_is_put_in_words(data: Interaction, question: str, item: str) -> None:
    messages = (Message(role="user", content=question), answer(item))
    expected = sample(messages=messages, task="recommendation", user="ada", num_chars=len(question) + len(item))
    assert made(data) == Made("sample", (expected,))


def observed(event_id: str) -> Made:
    return Made(
        "sample",
        (
            sample(
                messages=(Message(role="user", content="in"), answer("out")), task="t", num_chars=5, event_id=event_id
            ),
        ),
        (entry("in\nout", "observation", question="in", answer="out", event_id=event_id),),
    )


def test_an_observation_asks_with_its_input_for_its_label() -> None:
    assert made(Observation(task="t", input="in", label="out")) == observed("e")


def half(side: Any, text: str) -> Half:
    return Half("t", "o", 1, 3, side, text, "other")


def test_an_observation_in_two_parts_belongs_to_the_event_of_its_input() -> None:
    late = Observation(task="t", label="out", observation_id="o")
    assert made(late, half("input", "in")) == observed("other")
    early = Observation(task="t", input="in", observation_id="o")
    assert made(early, half("label", "out")) == observed("e")
    whole = Observation(task="t", input="in", label="out", observation_id="o")
    assert made(whole, half("label", "wrong")) == observed("e")


@pytest.mark.parametrize(("field", "missing"), [("input", "label"), ("label", "input")])
def test_half_an_observation_waits(field: str, missing: str) -> None:
    data = Observation(task="t", observation_id="o", **{field: "x"})
    assert made(data) == Made("memory-only", detail=f"waits for the {missing} of o")


@pytest.mark.parametrize(
    ("question", "asked"), [(None, "What is the capital of France?"), ("Capital of France?", "Capital of France?")]
)
def test_a_fact_is_a_question_to_be_known(question: str | None, asked: str) -> None:
    messages = (Message(role="user", content=asked), answer("Paris"))
    assert made(Fact(subject="France", relation="capital", object="Paris", question=question)) == Made(
        "sample",
        (sample(messages=messages, task="fact", until_known=True, num_chars=len(asked) + 5),),
        (entry(f"{asked}\nParis", "fact", question=asked, answer="Paris"),),
    )


def test_a_request_to_forget_says_what() -> None:
    data = Forget(event_ids=("a",), user="ada")
    assert made(data) == Made("forget", forget=data, detail="asked to forget")


def test_a_probe_is_no_sample_and_is_not_remembered() -> None:
    messages = (Message(role="user", content="Who?"), answer("Ann."))
    assert made(Probe(question="Who?", answer="Ann.", task="people")) == Made(
        "probe", probe=sample(messages=messages, task="people", num_chars=8), detail="to be judged by"
    )
