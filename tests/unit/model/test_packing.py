"""Sequences written into one row as a tree."""

from __future__ import annotations

import pytest
import torch

from lifelong.model.base import BaseModel
from lifelong.model.packing import pack
from lifelong.model.tokenise import IGNORE, Encoded

CPU = torch.device("cpu")
SEQUENCES = {
    "a beginning in common": [(1, 2, 3, 4), (1, 2, 3, 5, 6)],
    "one that has none": [(1, 2, 3, 4), (7, 2, 3), (1, 2, 8)],
    "branches of branches": [(1, 2, 3, 4), (1, 2, 5), (1, 2, 5, 6, 7), (1, 8), (9, 8)],
    "the same twice": [(1, 2, 3), (1, 2, 3)],
    "one the beginning of the other": [(1, 2, 3), (1, 2)],
    "alone": [(1, 2, 3)],
}


def _encoded(ids: tuple[int, ...], *, num_asked: int = 1) -> Encoded:
    return Encoded(ids, tuple(IGNORE if at < num_asked else token for at, token in enumerate(ids)))


@pytest.mark.parametrize("sequences", SEQUENCES.values(), ids=list(SEQUENCES))
def test_every_beginning_is_in_the_row_once(sequences: list[tuple[int, ...]]) -> None:
    beginnings = {ids[:length] for ids in sequences for length in range(1, len(ids) + 1)}
    packed = pack([_encoded(ids) for ids in sequences], CPU)
    assert packed.input_ids_1T.shape == (1, len(beginnings))


@pytest.mark.parametrize("sequences", SEQUENCES.values(), ids=list(SEQUENCES))
def test_each_is_predicted_as_if_it_were_alone(tiny: BaseModel, sequences: list[tuple[int, ...]]) -> None:
    packed = pack([_encoded(ids) for ids in sequences], CPU)
    with torch.no_grad():
        row_TV = tiny.model(
            input_ids=packed.input_ids_1T, position_ids=packed.position_ids_1T, attention_mask=packed.mask_11TT
        ).logits[0]
        alone = [tiny.model(input_ids=torch.tensor([ids])).logits[0, :-1] for ids in sequences]
    torch.testing.assert_close(row_TV[packed.source_N], torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert packed.targets_N.tolist() == [token for ids in sequences for token in ids[1:]]
    assert packed.sequence_N.tolist() == [number for number, ids in enumerate(sequences) for _ in ids[1:]]


def test_only_what_is_asked_for_is_a_target() -> None:
    packed = pack([_encoded((1, 2, 3, 4), num_asked=3), _encoded((1, 2, 5), num_asked=3)], CPU)
    assert (packed.source_N.tolist(), packed.targets_N.tolist(), packed.sequence_N.tolist()) == ([2], [4], [0])


def test_a_row_without_branches_needs_no_mask() -> None:
    assert pack([_encoded((1, 2, 3))] * 2, CPU).mask_11TT is None
    assert pack([_encoded((1, 2, 3)), _encoded((1, 4))], CPU).mask_11TT is not None
