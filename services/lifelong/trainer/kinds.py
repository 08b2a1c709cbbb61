"""What kind of sample it is: one of many examples of a task, or a statement of somebody."""

from __future__ import annotations

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample

# Single statements of somebody, not examples of a task: holding one out would mean not to listen.
_NEVER_HELD_OUT = frozenset({"feedback", "fact", "preference"})


def question_of(sample: Sample) -> tuple[Message, ...] | None:
    """What a sample that should be known is the answer to: of two answers to one question the later holds."""
    return sample.messages[:-1] if sample.until_known and len(sample.messages) > 1 else None


def is_single(sample: Sample) -> bool:
    """A statement of somebody, and not one of many examples of a task."""
    is_one = sample.until_known or sample.rejected is not None or sample.rating is not None
    return is_one or sample.task in _NEVER_HELD_OUT


def is_disliked(sample: Sample) -> bool:
    return sample.rating is not None and sample.rating < 0 and not sample.until_known
