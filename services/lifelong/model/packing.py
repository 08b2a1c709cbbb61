"""Several short sequences as one, so that no beginning is computed twice and nothing is padding.

The system prompt that all chats begin with is the larger part of a short fact. Here what several begin with is worked
through once, and each goes on from there without seeing the others: a tree (a trie), written into one row with a mask
and positions of its own. Mathematically the same as one row for each sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lifelong.model.tokenise import IGNORE, Encoded


class Packed(NamedTuple):
    """T tokens of the row, N target tokens of all sequences one after the other."""

    input_ids_1T: Tensor
    position_ids_1T: Tensor
    mask_11TT: Tensor | None
    """True where the row's token may look; ``None``: everything before, as usual."""
    source_N: Tensor
    """Place in the row of the token that each target is predicted from."""
    targets_N: Tensor
    sequence_N: Tensor


def pack(batch: Sequence[Encoded], device: torch.device) -> Packed:
    input_ids: list[int] = []
    positions: list[int] = []
    parents: list[int] = []
    children: dict[tuple[int, int], int] = {}
    sources, targets, sequences = [], [], []
    for number, encoded in enumerate(batch):
        place = -1
        for at, (token, label) in enumerate(zip(encoded.input_ids, encoded.labels, strict=True)):
            if at and label != IGNORE:
                sources.append(place)
                targets.append(label)
                sequences.append(number)
            parent, place = place, children.setdefault((place, token), len(parents))
            if place == len(parents):
                input_ids.append(token)
                positions.append(at)
                parents.append(parent)
    return Packed(
        torch.tensor([input_ids], device=device),
        torch.tensor([positions], device=device),
        None if parents == list(range(-1, len(parents) - 1)) else _mask(parents).to(device)[None, None],
        torch.tensor(sources, dtype=torch.int64, device=device),
        torch.tensor(targets, dtype=torch.int64, device=device),
        torch.tensor(sequences, dtype=torch.int64, device=device),
    )


def _mask(parents: Sequence[int]) -> Tensor:
    """A token looks at itself and at whatever its parent, which is before it in the row, looks at."""
    mask_TT = np.eye(len(parents), dtype=bool)
    for place, parent in enumerate(parents):
        if parent >= 0:
            mask_TT[place] |= mask_TT[parent]
    return torch.from_numpy(mask_TT)
