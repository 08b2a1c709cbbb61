from __future__ import annotations

import pytest

from lifelong.contracts.events import Message
from lifelong.inference.config import MemorySettings
from lifelong.inference.recall import Recall, used
from lifelong.memory.base import Hit, MemoryEntry
from lifelong.memory.index import MemoryIndex
from lifelong.memory.local import LocalMemory
from lifelong.model.embedder import HashEmbedder
from lifelong.runtime.clock import ManualClock


def entry(
    number: int, question: str | None, answer: str | None, text: str = "", user: str | None = None
) -> MemoryEntry:
    return MemoryEntry(
        id=f"0-{number}-0", event_id=f"e{number}", text=text or f"{question} {answer}", kind="correction",
        event_time=float(number), question=question, answer=answer, user=user,
    )  # fmt: skip


KEY = entry(1, "Where is the spare key?", "Under the mat.")
KEYS = entry(2, "Where is the spare key of the car?", "In the drawer.")
MEAL = entry(3, "When is lunch?", "At noon.")


def recall(*entries: MemoryEntry, **settings: float) -> Recall:
    memory = LocalMemory()
    memory.put(entries)
    index = MemoryIndex(memory, HashEmbedder())
    index.refresh()
    return Recall(index, MemorySettings(embedder="hash", **settings), ManualClock())


def question(text: str) -> tuple[Message, ...]:
    return (Message("user", "Hello."), Message("assistant", "Hello!"), Message("user", text))


def test_it_is_searched_by_the_last_thing_that_the_user_said() -> None:
    asked = (*question("Where is the spare key?"), Message("assistant", "It"))
    assert [hit.entry.id for hit in recall(KEY, MEAL).search(asked, None)] == [KEY.id]
    assert recall(KEY, MEAL).search((Message("system", "Where is the spare key?"),), None) == []


def test_what_is_much_less_alike_than_the_best_is_left_out() -> None:
    asked = question("Where is the spare key?")
    assert [hit.entry.id for hit in recall(KEY, KEYS, min_score=0.3, max_gap=1.0).search(asked, None)] == [
        KEY.id,
        KEYS.id,
    ]
    assert [hit.entry.id for hit in recall(KEY, KEYS, min_score=0.3, max_gap=0.05).search(asked, None)] == [KEY.id]


def test_none_is_ever_used_where_none_is_wanted() -> None:
    assert recall(KEY, entries=0).search(question("Where is the spare key?"), None) == []


@pytest.mark.parametrize("beginning", [(), (Message("assistant", "It is"),)])
def test_memories_stand_just_before_the_question_the_best_nearest(beginning: tuple[Message, ...]) -> None:
    asked = (Message("system", "Be brief."), *question("Where is the spare key?"), *beginning)
    prompt = recall().put_before(asked, [Hit(KEY, 0.9), Hit(MEAL, 0.6)])
    assert prompt[:3] == asked[:3]
    assert prompt[-1 - len(beginning) :] == asked[3:]
    told = prompt[3 : -1 - len(beginning)]
    assert [message.role for message in told] == ["user", "assistant", "user", "assistant"]
    assert [message.content for message in told[1::2]] == ["At noon.", "Under the mat."]


def test_a_text_is_told_and_cut() -> None:
    text = entry(4, None, None, text="The porter has the key. " * 100)
    prompt = recall(max_chars=50).put_before(question("Who has the key?"), [Hit(text, 0.9)])
    assert len(prompt) == 5
    assert prompt[2].content == f"Remember: {prompt[3].content}"
    assert prompt[3].content.startswith("The porter has the key.")
    assert len(prompt[3].content) <= 50


def test_without_memories_nothing_changes() -> None:
    assert recall().put_before(question("Why?"), []) == question("Why?")


def test_an_answer_names_the_events_behind_its_memories() -> None:
    (memory,) = used([Hit(KEY, 0.87654321)])
    assert (memory.id, memory.event_id, memory.score) == (KEY.id, "e1", 0.8765)
