from __future__ import annotations

import pytest
from tests.unit.collector.making import make_event

from lifelong.collector.config import CollectorSettings
from lifelong.collector.mask import Masker
from lifelong.collector.scrub import Scrubber
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
from lifelong.errors import DecodeError

SETTINGS = CollectorSettings(mask=("email",), max_chat_chars=200)
LONG = "x" * 201


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


def scrub(data: EventData) -> EventData:
    return Scrubber(SETTINGS, Masker(SETTINGS.mask)).scrub(make_event(data)).data


@pytest.mark.parametrize(
    ("data", "scrubbed"),
    [
        (
            Document(text="<p>Mail  a@b.org,\r\nplease.</p>", title=" A\n  title of c@d.org "),
            Document(text="Mail [EMAIL], please.", title="A title of [EMAIL]"),
        ),
        (
            Dialogue(messages=(user("a@b.org? \n"), Message(role="system", content=" "), assistant("<b>no</b>  x"))),
            Dialogue(messages=(user("[EMAIL]?"), assistant("<b>no</b>  x"))),
        ),
        (
            Feedback(messages=(user("q "),), answer="a@b.org", correction="c@d.org "),
            Feedback(messages=(user("q"),), answer="[EMAIL]", correction="[EMAIL]"),
        ),
        (
            Preference(messages=(user("q"),), chosen="a@b.org", rejected=" no "),
            Preference(messages=(user("q"),), chosen="[EMAIL]", rejected="no"),
        ),
        (
            Interaction(user="ada@b.org", item="i@j.org", item_text="by a@b.org"),
            Interaction(user="ada@b.org", item="i@j.org", item_text="by [EMAIL]"),
        ),
        (Observation(task="t", input=" a@b.org ", label="x "), Observation(task="t", input="[EMAIL]", label="x")),
        (
            Fact(subject="Ada", relation="address", object="a@b.org", question=" "),
            Fact(subject="Ada", relation="address", object="[EMAIL]"),
        ),
        (Forget(event_ids=("a@b.org",)), Forget(event_ids=("a@b.org",))),
        (Probe("Ada? ", "a@b.org", task="a@b.org"), Probe("Ada?", "[EMAIL]", task="a@b.org")),
    ],
    ids=lambda data: type(data).__name__,
)
def test_every_text_is_cleaned_and_masked_and_keys_are_left_alone(data: EventData, scrubbed: EventData) -> None:
    assert scrub(data) == scrubbed


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (Document(text="<p> </p> &amp; !?"), "too-short"),
        (Document(text="say it again " * 100), "repetitive"),
        (Document(text="\x00\x01\x02\x03 binary"), "garbled"),
        (Document(text="A title must be text.", title="\ufffd\ufffd"), "garbled"),
        (Document(text="Whose is it, then?", user="u" * 513), "bad-data"),
        (Dialogue(messages=(user("hello"),)), "bad-data"),
        (Dialogue(messages=(user("hello"), assistant(" \n"))), "bad-data"),
        (Dialogue(messages=(user(LONG), assistant("no"))), "too-long"),
        (Dialogue(messages=(user("x" * 150), assistant("y" * 60))), "too-long"),
        (Dialogue(messages=(user("sing"), assistant("la la " * 30))), "repetitive"),
        (Feedback(messages=(user("q"), assistant("a")), correction="c"), "bad-data"),
        (Feedback(messages=(user(" "),), correction="c"), "bad-data"),
        (Feedback(messages=(user("q"),), correction=" "), "too-short"),
        (Feedback(messages=(user("q"),), answer="a"), "bad-data"),
        (Feedback(messages=(user("q"),), rating=1.0), "bad-data"),
        (Preference(messages=(user("q"),), chosen=LONG, rejected="b"), "too-long"),
        (Preference(messages=(user("q"),), chosen="a", rejected=" "), "too-short"),
        (Observation(task="t"), "bad-data"),
        (Observation(task="t", input=" ", label="\n", observation_id="o"), "bad-data"),
        (Observation(task="t", input="x"), "bad-data"),
        (Observation(task="t", label="x", observation_id=""), "bad-data"),
        (Observation(task="t" * 513, input="x", label="y"), "bad-data"),
        (Fact(subject=" ", relation="r", object="o"), "too-short"),
        (Fact(subject="s", relation="r", object=LONG), "too-long"),
        (Interaction(user="u", item="i" * 513), "bad-data"),
        (Forget(), "bad-data"),
        (Probe(question="Who?", answer=" "), "too-short"),
    ],
)
def test_what_is_refused(data: EventData, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        scrub(data)
    assert caught.value.reason == reason


def test_an_id_may_not_be_endless() -> None:
    scrubber = Scrubber(SETTINGS, Masker(()))
    with pytest.raises(DecodeError, match="id has more than 512"):
        scrubber.scrub(make_event(Forget(user="ada"), "i" * 513))
