"""What the collector makes of events, and how it accounts for each of them."""

from __future__ import annotations

from typing import Literal

import msgspec

from lifelong.contracts.events import Forget, Message

Outcome = Literal["sample", "duplicate", "dead-letter", "expired", "memory-only", "forget", "probe", "lost"]
"""``sample``: trained on, or held out. All others carry no samples and say why. ``probe``: what versions are judged by
and never learn. ``lost``: deleted by retention before
it was read, and given up explicitly; one such record stands for all offsets that it covers."""


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing to learn.

    With ``messages`` the loss is on the assistant turns only; with ``text`` it is on every token. A rejected answer
    belongs to the same messages as the last assistant turn.
    """

    id: str
    """``{partition}-{offset}-{index}``: the same on every replay."""
    event_id: str
    event_time: float
    """Seconds since 1970."""
    task: str
    """What replay balances over and forgetting is measured on."""
    messages: tuple[Message, ...] = ()
    text: str | None = None
    rejected: str | None = None
    rating: float | None = None
    weight: float = 1.0
    until_known: bool = False
    """A correction or a fact, to be trained on until the model has it, as opposed to one example of many."""
    user: str | None = None
    language: str | None = None
    num_chars: int = 0
    traceparent: str | None = None


class SampleRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of one record of the samples topic: what became of the source offsets [``from_offset``, ``to_offset``).

    A reader keeps a watermark per source partition, the first offset it has not taken in. It takes a record in only
    if ``from_offset`` ≤ watermark < ``to_offset``: an older one is a duplicate, a newer one shows a gap that the
    collector will close by sending again.
    """

    source_topic: str
    source_partition: int
    from_offset: int
    to_offset: int
    outcome: Outcome
    samples: tuple[Sample, ...] = ()
    detail: str | None = None
    """Why there are no samples, for people."""
    event_id: str | None = None
    forget: Forget | None = None
    """With the outcome ``forget``: what must not be learnt any more, by event id or by whose it is."""
    probe: Sample | None = None
    """With the outcome ``probe``."""


def coverage(record: SampleRecord, watermark: int) -> Literal["new", "duplicate", "gap"]:
    """What a reader whose watermark for this source partition is ``watermark`` does with the record: take only what
    is ``new``, and move the watermark to its ``to_offset``."""
    if record.to_offset <= watermark:
        return "duplicate"
    return "new" if record.from_offset <= watermark else "gap"


def must_be_forgotten(sample: Sample, forget: Forget) -> bool:
    """By the event it came of, or by whose it is."""
    return sample.event_id in forget.event_ids or (forget.user is not None and sample.user == forget.user)
