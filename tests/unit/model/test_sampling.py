from __future__ import annotations

import math

import pytest
import torch

from lifelong.model.sampling import SamplingParams, choose

LOGITS = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))


def _frequencies(params: SamplingParams, num: int = 4000) -> list[float]:
    counts = torch.bincount(torch.tensor([choose(LOGITS, params, position) for position in range(num)]), minlength=4)
    return [float(count) / num for count in counts]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_tokens_are_drawn_with_their_probability(temperature: float) -> None:
    expected = torch.softmax(LOGITS / temperature, -1).tolist()
    frequencies = _frequencies(SamplingParams(temperature=temperature, seed=1))
    for frequency, probability in zip(frequencies, expected, strict=True):
        assert abs(frequency - probability) < 4 * math.sqrt(probability * (1 - probability) / 4000)


def test_top_p_keeps_the_most_likely_tokens_that_reach_it() -> None:
    frequencies = _frequencies(SamplingParams(temperature=1.0, top_p=0.7, seed=1))
    assert frequencies[2:] == [0, 0]
    assert abs(frequencies[0] - 0.5 / 0.8) < 0.04
    assert _frequencies(SamplingParams(temperature=1.0, top_p=0.01, seed=1), 100) == [1, 0, 0, 0]


def test_seed_and_position_decide() -> None:
    def answer(seed: int) -> list[int]:
        return [choose(LOGITS, SamplingParams(temperature=1.0, seed=seed), position) for position in range(50)]

    assert answer(3) == answer(3)
    assert answer(3) != answer(4)
    # Not the same stream moved by one.
    assert answer(3)[1:] != answer(4)[:-1]


def test_without_temperature_the_most_likely_token_is_taken() -> None:
    assert choose(LOGITS, SamplingParams(), 0) == 0
