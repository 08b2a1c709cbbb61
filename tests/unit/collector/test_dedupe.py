from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.collector.dedupe import (
    NUM_PERMUTATIONS,
    Claim,
    Duplicate,
    LocalSeen,
    Signer,
    digest,
    num_equal,
    num_needed,
    signature,
)

WINDOW = 100.0
_RANDOM = random.Random(7)
WORDS = [f"word{_RANDOM.randrange(10_000)}" for _ in range(400)]


def text(*changes: int, words: list[str] = WORDS) -> str:
    return " ".join(f"other{i}" if i in changes else word for i, word in enumerate(words))


def similarity(a: str, b: str) -> float:
    signer = Signer(50)
    first, second = signer.sign(a, ""), signer.sign(b, "")
    assert first is not None
    assert second is not None
    return num_equal(first.values, second.values) / NUM_PERMUTATIONS


@pytest.mark.parametrize("num_changes", [0, 4, 20, 60])
def test_signatures_estimate_the_similarity(num_changes: int) -> None:
    changed = text(*range(3, 400, 400 // num_changes) if num_changes else ())
    shingles = [{tuple(t.split()[i : i + 5]) for i in range(396)} for t in (text(), changed)]
    true = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    # Standard deviation of the estimate: sqrt(J (1-J) / 128) ≤ 0.045.
    assert similarity(text(), changed) == pytest.approx(true, abs=0.14)


def test_signatures_do_not_depend_on_the_machine_or_the_run() -> None:
    found = Signer(5).sign("the quick brown fox jumps over the lazy dog", "ada")
    assert found is not None
    assert digest(found.values.hex(), *found.bands) == "174a4cb10220198b01a6efb6a9fc5aed"


def test_case_and_spaces_do_not_matter_to_nearness() -> None:
    assert similarity(text(), text().upper().replace(" ", "\n")) == 1.0


def test_short_texts_are_not_compared() -> None:
    assert Signer(50).sign("one two three four five six", "") is None
    assert Signer(50).sign("東" * 49, "") is None
    assert Signer(50).sign("東京" * 25, "") is not None


def test_scopes_share_no_band() -> None:
    mine, yours = Signer(50).sign(text(), "ada"), Signer(50).sign(text(), "bob")
    assert mine is not None
    assert yours is not None
    assert not set(mine.bands) & set(yours.bands)


def test_digests_of_different_parts_differ() -> None:
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("abc", "")}) == 4


def document(position: str, time: float, base: int = 0, changed: int = 0) -> Claim:
    """Signatures of different bases share nothing; of the same base, all but as many as ``changed`` differs by."""
    values = [base * 1000 + i + (10**6 if i < changed else 0) for i in range(128)]
    packed = b"".join(value.to_bytes(4, "little") for value in values)
    return Claim(position, time, f"e-{position}", f"c-{base}-{changed}", signature(packed, ""))


def test_the_first_is_new_and_what_follows_repeats_it() -> None:
    seen = LocalSeen(WINDOW, 0.8)
    claims = [
        Claim("0-0", 0.0, "e"),
        Claim("1-0", 5.0, "e"),
        Claim("0-1", 5.0, "f", "content"),
        Claim("0-2", 5.0, "g", "content"),
        document("0-3", 5.0),
        document("1-3", 5.0, changed=20),
        document("1-4", 5.0, changed=40),
    ]
    verdicts = [
        None,
        Duplicate("event", "0-0"),
        None,
        Duplicate("content", "0-1"),
        None,
        Duplicate("near", "0-3"),
        None,
    ]
    assert seen.first_seen(claims) == verdicts
    assert seen.first_seen(claims) == verdicts


def test_the_threshold_is_met_exactly() -> None:
    needed = num_needed(0.8)
    assert needed == 103
    for changed, verdict in ((128 - needed, Duplicate("near", "0-0")), (128 - needed + 1, None)):
        seen = LocalSeen(WINDOW, 0.8)
        assert seen.first_seen([document("0-0", 0.0), document("0-1", 0.0, changed=changed)]) == [None, verdict]


def test_after_the_window_it_is_new_again() -> None:
    seen = LocalSeen(WINDOW, 0.8)
    claims = [Claim("0-0", 0.0, "e"), Claim("0-1", 100.0, "e"), Claim("0-2", 101.0, "e"), Claim("0-3", 150.0, "e")]
    verdicts = [None, Duplicate("event", "0-0"), None, Duplicate("event", "0-2")]
    assert seen.first_seen(claims) == verdicts
    assert seen.first_seen(claims) == verdicts


def test_a_document_that_changes_slowly_is_new_once_it_has_changed_enough() -> None:
    seen = LocalSeen(WINDOW, 0.8)
    claims = [document(f"0-{i}", float(i), changed=i) for i in range(60)]
    verdicts = seen.first_seen(claims)
    assert [i for i, verdict in enumerate(verdicts) if verdict is None] == [0, 26, 52]


claim_plans = st.lists(
    st.tuples(
        st.integers(0, 1),  # partition
        st.floats(0, 250),  # time
        st.integers(0, 3),  # event
        st.none() | st.tuples(st.integers(0, 1), st.sampled_from([0, 10, 20, 30, 40])),  # document
    ),
    min_size=1,
    max_size=25,
)


def claims_of(plan: list[tuple[int, float, int, tuple[int, int] | None]]) -> list[Claim]:
    offsets = [itertools.count(), itertools.count()]
    claims = []
    for partition, time, event, content in plan:
        position = f"{partition}-{next(offsets[partition])}"
        if content is None:
            claims.append(Claim(position, time, f"e{event}"))
        else:
            made = document(position, time, *content)
            claims.append(Claim(position, time, f"e{event}", made.content, made.signature))
    return claims


@given(claim_plans, st.data())
def test_every_replay_decides_the_same(
    plan: list[tuple[int, float, int, tuple[int, int] | None]], data: st.DataObject
) -> None:
    """Any number of crashes after any claim, each followed by reading on from any earlier position."""
    seen = LocalSeen(WINDOW, 0.8)
    claims = claims_of(plan)
    first: dict[str, Duplicate | None] = {}
    at = 0
    for _ in range(data.draw(st.integers(0, 4), label="crashes")):
        crash = data.draw(st.integers(at, len(claims)), label="crash after")
        for claim in claims[at:crash]:
            verdict = seen.first_seen([claim])[0]
            assert first.setdefault(claim.position, verdict) == verdict
        at = data.draw(st.integers(0, crash), label="read on from")
    for claim, verdict in zip(claims[at:], seen.first_seen(claims[at:]), strict=True):
        assert first.setdefault(claim.position, verdict) == verdict
    for claim, verdict in zip(claims, seen.first_seen(claims), strict=True):
        assert first[claim.position] == verdict


@given(claim_plans)
def test_of_equal_contents_in_a_window_exactly_one_is_new(
    plan: list[tuple[int, float, int, tuple[int, int] | None]],
) -> None:
    seen = LocalSeen(1e9, 0.8)
    claims = claims_of(plan)
    new = [claim for claim, verdict in zip(claims, seen.first_seen(claims), strict=True) if verdict is None]
    assert (
        len({claim.event for claim in new})
        == len(new)
        == len({c.event for c in claims})
        - sum(
            # An event may be new and its content not.
            1
            for event in {c.event for c in claims}
            if event not in {c.event for c in new}
        )
    )
    contents = [claim.content for claim in new if claim.content is not None]
    assert len(set(contents)) == len(contents)
