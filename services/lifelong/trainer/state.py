"""What a version consists of besides its adapter: all that decides the bytes of the next one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from lifelong.contracts.samples import Sample
from lifelong.errors import CorruptVersionError
from lifelong.learning.surprise import SurpriseState
from lifelong.trainer.judging import JudgingState

OPTIMIZER_FILE = "optimizer.safetensors"
REPLAY_FILE = "replay.jsonl"
HELD_OUT_FILE = "held_out.jsonl"
"""Recently."""
OLDER_FILE = "older.jsonl"
"""Held out longer ago."""
PROBES_FILE = "probes.jsonl"
ANCHORS_FILE = "anchors.jsonl"
STATE_FILE = "state.json"
RECIPE_FILE = "recipe.safetensors"
"""What the methods of the recipe have to remember; only where there is something."""
FAST_FILE = "fast.safetensors"
"""The weights that learn, where the adapter that is served is another: a slow average of them."""


class LearnerState(msgspec.Struct, frozen=True):
    """``state.json``."""

    learnt: dict[str, int] = {}
    """Samples by task, since the line began."""
    replay: SurpriseState = SurpriseState()
    """What belongs to surprise is empty where the buffer does not choose by it."""
    judging: JudgingState = JudgingState()


def pack_samples(samples: Iterable[Sample]) -> bytes:
    return msgspec.json.Encoder().encode_lines(list(samples))


def unpack_samples(data: bytes, name: str) -> list[Sample]:
    """Raises CorruptVersionError: not JSON lines with samples."""
    try:
        return msgspec.json.Decoder(Sample).decode_lines(data)
    except msgspec.DecodeError as error:
        raise CorruptVersionError(f"{name}: {error}") from error


def pack_state(state: LearnerState) -> bytes:
    return msgspec.json.format(msgspec.json.encode(state, order="sorted"), indent=1)


def unpack_state(files: Mapping[str, bytes]) -> LearnerState:
    """Raises CorruptVersionError: ``state.json`` is not one."""
    try:
        return msgspec.json.decode(files[STATE_FILE], type=LearnerState)
    except msgspec.DecodeError as error:
        raise CorruptVersionError(f"{STATE_FILE}: {error}") from error
