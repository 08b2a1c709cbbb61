"""Random events of every type, as applications could publish them."""

from __future__ import annotations

from hypothesis import strategies as st

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

text = st.text(st.characters(codec="utf-8"), max_size=30)
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
maybe = st.none() | text
# The specification forbids control characters in attributes.
attribute = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=30)
numbers = st.floats(allow_nan=False, allow_infinity=False)
messages = st.lists(
    st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=text), min_size=1, max_size=4
).map(tuple)
# Timestamps have microseconds; 1900 to 2200.
seconds = st.integers(-2_208_988_800_000_000, 7_258_118_400_000_000).map(lambda micros: micros / 1e6)

data: st.SearchStrategy[EventData] = st.one_of(
    st.builds(Document, text=words, title=maybe, url=maybe, user=maybe, task=text),
    st.builds(Dialogue, messages=messages, user=maybe, task=text),
    st.builds(
        Feedback,
        messages=messages,
        answer=maybe,
        correction=st.none() | words,
        rating=st.none() | st.floats(-1, 1),
        output_id=maybe,
        user=maybe,
        task=text,
    ),
    st.builds(Preference, messages=messages, chosen=words, rejected=words, user=maybe, task=text),
    st.builds(Interaction, user=words, item=words, action=words, value=st.none() | numbers, item_text=maybe, task=text),
    st.builds(Observation, task=words, input=st.none() | words, label=st.none() | words, observation_id=maybe),
    st.builds(Fact, subject=words, relation=words, object=words, question=maybe, task=text),
    st.builds(Forget, event_ids=st.lists(words, max_size=4).map(tuple), user=maybe),
    st.builds(Probe, question=words, answer=words, task=words),
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    value = draw(data)
    return Event(
        id=draw(attribute),
        source=draw(attribute),
        type=type_name(value),
        data=value,
        time=draw(seconds),
        subject=draw(st.none() | attribute),
        partitionkey=draw(st.none() | attribute),
        traceparent=draw(st.none() | attribute),
        expirytime=draw(st.none() | seconds),
    )
