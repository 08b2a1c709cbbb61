"""The index over a local store, with an embedder whose vectors are known."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from lifelong.errors import UnreachableError
from lifelong.memory.base import Changes, Hit, MemoryEntry
from lifelong.memory.index import COSINE_WEIGHT, MemoryIndex
from lifelong.memory.local import LocalMemory

TOPICS = ("firefox", "paris", "name", "rust")
NOW = 1000.0


class TopicEmbedder:
    """One axis for each topic that a text speaks of, and one for texts that speak of none."""

    def __init__(self, name: str = "topics") -> None:
        self.id = name
        self.num_embedded = 0

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.num_embedded += len(texts)
        vectors = np.array([[topic in text.lower() for topic in TOPICS] for text in texts], dtype=np.float32)
        vectors = np.concatenate([vectors, vectors.sum(1, keepdims=True) == 0], axis=1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def note(entry_id: str, text: str, *, user: str | None = None, expires: float | None = None) -> MemoryEntry:
    return MemoryEntry(
        id=entry_id, event_id=f"event-{entry_id}", text=text, kind="fact", event_time=1.0, user=user, expires=expires
    )


def answer(
    entry_id: str, question: str, text: str, time: float, *, user: str | None = None, expires: float | None = None
) -> MemoryEntry:
    return MemoryEntry(
        id=entry_id,
        event_id=f"event-{entry_id}",
        text=f"{question} {text}",
        kind="correction",
        event_time=time,
        question=question,
        answer=text,
        user=user,
        expires=expires,
    )


class Setup:
    def __init__(self) -> None:
        self.store = LocalMemory()
        self.embedder = TopicEmbedder()
        self.index = MemoryIndex(self.store, self.embedder)

    def put(self, *entries: MemoryEntry) -> None:
        self.store.put(entries)
        self.index.refresh()

    def search(
        self, query: str, *, user: str | None = None, k: int = 10, min_score: float = 0.0, now: float = NOW
    ) -> list[Hit]:
        return self.index.search(query, user=user, k=k, min_score=min_score, now=now)

    def ids(self, query: str, *, user: str | None = None, k: int = 10, now: float = NOW) -> list[str]:
        return [hit.entry.id for hit in self.search(query, user=user, k=k, now=now)]


@pytest.fixture
def memory() -> Setup:
    return Setup()


def test_an_empty_index_finds_nothing(memory: Setup) -> None:
    assert memory.search("anything") == []
    assert memory.index.refresh() == 0
    assert memory.search("anything") == []


def test_score_is_between_meaning_and_words(memory: Setup) -> None:
    memory.put(note("0-1-0", "firefox is a browser"), note("0-2-0", "paris is a city"))
    same, other = memory.search("Firefox is a browser!")
    assert same.entry.id == "0-1-0"
    assert same.score == pytest.approx(1.0)
    # Another topic; of the words only "is" and "a".
    assert 0 < other.score < 1 - COSINE_WEIGHT
    assert [hit.entry.id for hit in memory.search("firefox", min_score=0.9)] == ["0-1-0"]
    assert memory.search("firefox", k=0) == []
    assert len(memory.search("firefox", k=1)) == 1


def test_a_rare_word_decides_where_meanings_are_equal(memory: Setup) -> None:
    memory.put(*(note(f"0-{number}-0", f"firefox {number} was released") for number in range(100, 150)))
    assert memory.ids("when was firefox 117 released", k=1) == ["0-117-0"]
    assert memory.ids("FIREFOX １１７", k=1) == ["0-117-0"]


def test_words_without_spaces_between_them(memory: Setup) -> None:
    memory.put(note("0-1-0", "東京の人口は1400万人です"), note("0-2-0", "大阪の人口は880万人です"))
    assert memory.ids("大阪の人口は何人", k=1) == ["0-2-0"]


def test_nobody_sees_what_is_another_users(memory: Setup) -> None:
    memory.put(note("0-1-0", "name ann", user="ann"), note("0-2-0", "name bob", user="bob"), note("0-3-0", "name"))
    assert memory.ids("name") == ["0-3-0"]
    assert sorted(memory.ids("name", user="ann")) == ["0-1-0", "0-3-0"]
    assert memory.ids("name", user="") == ["0-3-0"]


def test_what_has_expired_is_not_found_before_it_is_swept(memory: Setup) -> None:
    memory.put(note("0-1-0", "paris", expires=NOW), note("0-2-0", "paris"))
    assert sorted(memory.ids("paris", now=NOW)) == ["0-1-0", "0-2-0"]
    assert memory.ids("paris", now=NOW + 0.5) == ["0-2-0"]


def test_the_newest_answer_to_a_question_replaces_the_others(memory: Setup) -> None:
    memory.put(
        answer("0-9-0", "Which firefox?", "110", 5.0),
        answer("0-7-0", "which  Firefox", "109", 4.0),
        answer("0-8-0", "Which rust?", "1.70", 1.0),
    )
    assert memory.ids("which firefox")[0] == "0-9-0"
    assert "0-7-0" not in memory.ids("which firefox 109")
    # At the same time the later one in the stream: 10 after 9.
    memory.put(answer("0-10-0", "which firefox?", "111", 5.0))
    assert memory.ids("which firefox")[0] == "0-10-0"
    assert "0-9-0" not in memory.ids("which firefox")


def test_an_outdated_answer_is_not_found_where_the_newest_scores_too_low(memory: Setup) -> None:
    memory.put(answer("0-1-0", "which firefox", "one hundred and ten", 1.0), answer("0-2-0", "which firefox", "x", 2.0))
    old_words = "which firefox one hundred and ten"
    (found,) = memory.search(old_words)
    assert found.entry.id == "0-2-0"
    assert memory.search(old_words, min_score=found.score + 0.01) == []


def test_forgetting_the_newest_answer_brings_back_the_one_before(memory: Setup) -> None:
    memory.put(answer("0-1-0", "which firefox", "110", 1.0), answer("0-2-0", "which firefox", "111", 2.0))
    memory.store.forget(event_ids=["event-0-2-0"])
    assert memory.index.refresh() == 1
    assert memory.ids("which firefox") == ["0-1-0"]


def test_another_users_answer_replaces_nothing(memory: Setup) -> None:
    memory.put(
        answer("0-1-0", "which firefox", "110", 1.0),
        answer("0-2-0", "which firefox", "999", 2.0, user="mallory"),
        answer("0-3-0", "which rust", "1.70", 1.0),
        answer("0-4-0", "which rust", "1.71", 2.0, expires=NOW - 1),
    )
    assert memory.ids("which firefox", k=1) == ["0-1-0"]
    assert memory.ids("which firefox", k=1, user="mallory") == ["0-2-0"]
    assert memory.ids("which rust", k=1) == ["0-3-0"]


def test_forgotten_entries_are_gone_and_the_rest_is_found(memory: Setup) -> None:
    memory.put(*(note(f"0-{number}-0", f"paris word{number}") for number in range(10)))
    memory.store.forget(event_ids=[f"event-0-{number}-0" for number in (0, 4, 9)])
    assert memory.index.refresh() == 3
    assert len(memory.index) == 7
    for number in range(10):
        found = memory.ids(f"word{number}", k=1) == [f"0-{number}-0"]
        assert found == (number not in (0, 4, 9))


def test_after_any_changes_it_is_as_if_made_anew(memory: Setup) -> None:
    chance = random.Random(7)
    alive: list[str] = []
    for number in range(300):
        if alive and chance.random() < 0.4:
            memory.store.forget(event_ids=["event-" + alive.pop(chance.randrange(len(alive)))])
        else:
            alive.append(f"0-{number}-0")
            topic = chance.choice(TOPICS)
            words = f"{topic} w{chance.randrange(20)} w{chance.randrange(20)}"
            entry = answer(alive[-1], words, "", float(number)) if chance.random() < 0.5 else note(alive[-1], words)
            memory.store.put([entry])
        if chance.random() < 0.3:
            memory.index.refresh()
    memory.index.refresh()
    fresh = MemoryIndex(memory.store, TopicEmbedder())
    fresh.refresh()
    assert len(fresh) == len(memory.index) == len(alive)
    for topic in TOPICS:
        for number in range(20):
            query = f"{topic} w{number}"
            ours = {hit.entry.id: hit.score for hit in memory.search(query, k=1000)}
            theirs = fresh.search(query, user=None, k=1000, min_score=0.0, now=NOW)
            assert ours == pytest.approx({hit.entry.id: hit.score for hit in theirs}, abs=1e-5)


def test_the_next_server_does_not_embed_again(memory: Setup) -> None:
    memory.put(*(note(f"0-{number}-0", f"paris {number}") for number in range(70)))
    assert memory.embedder.num_embedded == 70
    second = TopicEmbedder()
    index = MemoryIndex(memory.store, second)
    assert index.refresh() == 70
    assert second.num_embedded == 0
    assert index.search("paris", user=None, k=1, min_score=0.5, now=NOW)
    other = TopicEmbedder("of another kind")
    MemoryIndex(memory.store, other).refresh()
    assert other.num_embedded == 70


def test_what_is_there_again_is_not_embedded_again(memory: Setup) -> None:
    class Behind(LocalMemory):
        """A store whose log never reaches back far enough."""

        def changes(self, cursor: str | None, limit: int = 1000) -> Changes:
            return super().changes(None, limit)

    store = Behind()
    index = MemoryIndex(store, memory.embedder)
    store.put([note("0-1-0", "paris"), note("0-2-0", "rust")])
    index.refresh()
    store.forget(event_ids=["event-0-1-0"])
    store.put([note("0-3-0", "name")])
    index.refresh()
    found = index.search("paris rust name", user=None, k=9, min_score=0, now=NOW)
    assert sorted(hit.entry.id for hit in found) == ["0-2-0", "0-3-0"]
    # Three entries and the question.
    assert memory.embedder.num_embedded == 4


def test_a_store_that_is_away_leaves_the_index_as_it_was(memory: Setup) -> None:
    class Away(LocalMemory):
        away = False

        def changes(self, cursor: str | None, limit: int = 1000) -> Changes:
            if self.away:
                raise UnreachableError("gone")
            return super().changes(cursor, limit)

    store = Away()
    index = MemoryIndex(store, memory.embedder)
    store.put([note("0-1-0", "paris")])
    index.refresh()
    store.away = True
    with pytest.raises(UnreachableError):
        index.refresh()
    assert len(index.search("paris", user=None, k=1, min_score=0.5, now=NOW)) == 1
    store.away = False
    store.put([note("0-2-0", "paris too")])
    assert index.refresh() == 1
    assert len(index) == 2


def test_searches_while_it_changes(memory: Setup) -> None:
    memory.put(note("0-0-0", "paris stays"))
    stop = threading.Event()
    wrong: list[object] = []

    def search() -> None:
        try:
            while not stop.is_set():
                hits = memory.search("paris stays", k=3)
                if not hits or hits[0].entry.id != "0-0-0" or hits[0].score < 0.99:
                    wrong.append(hits)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 60):
        memory.put(*(note(f"0-{number}-{part}", f"rust {number} {part}") for part in range(5)))
        memory.store.forget(event_ids=[f"event-0-{number - 1}-{part}" for part in range(1, 5)])
        memory.index.refresh()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
