"""Several short sequences with the same beginning as one, so that nothing is computed twice and nothing is padding.

The system prompt that all chats begin with is the larger part of a short fact. Here it is worked through once, and each
sequence goes on from it without seeing the others: a tree, written into one row with a mask and positions of its own.
Mathematically the same as one row for each sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
    num_shared = _num_shared(batch)
    input_ids = list(batch[0].input_ids[:num_shared])
    positions = list(range(num_shared))
    owners = [-1] * num_shared
    sources, targets, sequences = [], [], []
    for number, encoded in enumerate(batch):
        start = len(input_ids) - num_shared  # place in the row of what would be the sequence's token 0
        for at in range(1, len(encoded.labels)):
            if encoded.labels[at] != IGNORE:
                sources.append(at - 1 if at - 1 < num_shared else start + at - 1)
                targets.append(encoded.labels[at])
                sequences.append(number)
        own = encoded.input_ids[num_shared:]
        input_ids += own
        positions += range(num_shared, num_shared + len(own))
        owners += [number] * len(own)
    owner_T = torch.tensor(owners, device=device)
    mask_TT = (owner_T[None, :] == owner_T[:, None]) | (owner_T == -1)[None, :]
    return Packed(
        torch.tensor([input_ids], device=device),
        torch.tensor([positions], device=device),
        None if len(batch) == 1 else mask_TT.tril()[None, None],
        torch.tensor(sources, dtype=torch.int64, device=device),
        torch.tensor(targets, dtype=torch.int64, device=device),
        torch.tensor(sequences, dtype=torch.int64, device=device),
    )


def _num_shared(batch: Sequence[Encoded]) -> int:
    """Tokens that all sequences begin with; each keeps one of its own at least."""
    if len(batch) == 1:
        return 0
    shortest = min(len(encoded.input_ids) for encoded in batch)
    for at in range(shortest - 1):
        if len({encoded.input_ids[at] for encoded in batch}) > 1:
            return at
    return max(0, shortest - 1)
