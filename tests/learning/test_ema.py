"""Slow weights against weighted means worked out from all the fast ones."""

from __future__ import annotations

import pytest
import torch
from tests.learning.toy import ToyLearner, copy_of, same

from lifelong.learning.ema import Ema


def walk(learner, step):
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in learner.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def test_it_is_the_weighted_mean_of_what_was_seen_whatever_it_started_from():
    learner = ToyLearner()
    ema, tokens, decay = Ema(learner.parameters, decay=0.8, reference_tokens=100), [50, 200, 100, 7], 0.8
    seen = []
    for step, num_tokens in enumerate(tokens):
        walk(learner, step)
        seen.append(copy_of(learner))
        ema.after_update(learner, num_tokens)
        d = [decay ** (n / 100) for n in tokens[: step + 1]]
        weights = [(1 - d[i]) * torch.tensor(d[i + 1 :]).prod().item() for i in range(step + 1)]
        for name in seen[0]:
            mean = sum(w * s[name] for w, s in zip(weights, seen, strict=True)) / sum(weights)
            torch.testing.assert_close(ema.state()[f"slow.{name}"], mean)


def test_two_half_steps_forget_as_much_as_a_whole_one():
    ends = []
    for tokens in ((100,), (50, 50)):
        learner = ToyLearner()
        ema = Ema(learner.parameters, decay=0.9, reference_tokens=100)
        ema.after_update(learner, 100)
        walk(learner, 0)
        for num_tokens in tokens:
            ema.after_update(learner, num_tokens)
        ends.append(ema.state())
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name])


def test_per_version_it_moves_at_the_end_only():
    learner = ToyLearner()
    ema = Ema(learner.parameters, decay=0.5, every="version")
    ema.end(learner, [], 1)
    first = copy_of(learner)
    walk(learner, 0)
    ema.after_update(learner, 100)
    assert all(torch.equal(ema.state()[f"slow.{name}"], first[name]) for name in first)
    ema.end(learner, [], 2)
    for name, second in copy_of(learner).items():
        torch.testing.assert_close(ema.state()[f"slow.{name}"], (0.5 * first[name] + second) / 1.5)


@pytest.mark.parametrize("every", ["step", "version"])
def test_without_decay_the_slow_weights_are_the_fast_ones(every):
    learner = ToyLearner()
    ema = Ema(learner.parameters, decay=0.0, every=every)
    for step in range(3):
        walk(learner, step)
        ema.after_update(learner, 10)
        ema.end(learner, [], step)
        fast = copy_of(learner)
        with ema.swapped():
            assert same(copy_of(learner), fast)


def test_swapped_in_and_out_to_the_bit_also_after_an_error():
    learner = ToyLearner()
    ema = Ema(learner.parameters, decay=0.9)
    ema.after_update(learner, 256)
    slow = copy_of(learner)
    walk(learner, 0)
    fast = copy_of(learner)

    def fail():
        with ema.swapped():
            assert same(copy_of(learner), slow)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert same(copy_of(learner), fast)
    assert same({name.removeprefix("slow."): t for name, t in ema.state().items() if name != "product"}, slow)


def test_catching_up_halves_the_way_until_it_is_enough():
    learner = ToyLearner()
    ema = Ema(learner.parameters, decay=0.9)
    ema.after_update(learner, 256)
    slow = copy_of(learner)
    walk(learner, 0)
    fast = copy_of(learner)
    name = next(iter(fast))

    def is_near():
        now = learner.parameters[name]
        return bool((now - fast[name]).norm() < 0.3 * (slow[name] - fast[name]).norm())

    assert ema.catch_up(is_near, 10) == 2
    assert same(copy_of(learner), fast)
    torch.testing.assert_close(ema.state()[f"slow.{name}"], slow[name] + 0.75 * (fast[name] - slow[name]))
    assert ema.catch_up(is_near, 10) == 0
    assert ema.catch_up(lambda: False, 3) == 3


def test_a_decay_of_one_is_refused():
    with pytest.raises(ValueError, match="decay"):
        Ema(ToyLearner().parameters, decay=1.0)
