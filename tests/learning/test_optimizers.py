"""Ours do what torch's do, and can be stopped and gone on with."""

from __future__ import annotations

import pytest
import torch

from lifelong.learning.methods import OPTIMIZERS
from lifelong.learning.optimizers import SGD, AdamW
from lifelong.learning.settings import LearningSettings

SHAPES = {"a": (3, 4), "b": (5,)}


def new_parameters() -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}


def give_gradients(parameters: dict[str, torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_is_torchs_adamw_where_steps_have_equal_tokens(weight_decay):
    ours, theirs = new_parameters(), new_parameters()
    settings = LearningSettings(
        learning_rate=0.01, beta2=0.95, weight_decay=weight_decay, max_grad_norm=0, reference_tokens=256
    )
    optimizer = AdamW(ours, settings)
    reference = torch.optim.AdamW(theirs.values(), lr=0.01, betas=(0.9, 0.95), weight_decay=weight_decay)
    for step in range(20):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimizer.step(256)
        reference.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-7)


def test_adamws_second_moment_has_its_half_life_in_tokens():
    """Two steps of half the tokens forget as much as one step of all."""
    states = []
    for num_steps, num_tokens in ((1, 256), (2, 128)):
        parameters = new_parameters()
        optimizer = AdamW(parameters, LearningSettings(beta2=0.9, max_grad_norm=0))
        give_gradients(parameters, 0)
        optimizer.step(256)
        first = optimizer.state()["v.a"]
        for _ in range(num_steps):
            for parameter in parameters.values():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step(num_tokens)
        states.append(optimizer.state()["v.a"] / first)
    torch.testing.assert_close(states[0], states[1])
    torch.testing.assert_close(states[0], torch.full_like(states[0], 0.9))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_torchs_sgd(momentum):
    ours, theirs = new_parameters(), new_parameters()
    optimizer = SGD(ours, LearningSettings(learning_rate=0.1, momentum=momentum, max_grad_norm=0))
    reference = torch.optim.SGD(theirs.values(), lr=0.1, momentum=momentum)
    for step in range(5):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimizer.step(7)
        reference.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])


def test_a_long_gradient_is_shortened_as_torch_does():
    ours, theirs = new_parameters(), new_parameters()
    give_gradients(ours, 0)
    give_gradients(theirs, 0)
    norm = torch.nn.utils.clip_grad_norm_(theirs.values(), 0.5)
    assert norm > 0.5
    SGD(ours, LearningSettings(learning_rate=1.0, max_grad_norm=0.5)).step(1)
    for name, before in new_parameters().items():
        torch.testing.assert_close(before - ours[name], theirs[name].grad)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_resumed_is_uninterrupted_to_the_bit(name):
    settings = LearningSettings(optimizer=name, momentum=0.9, learning_rate=0.05)
    whole = new_parameters()
    optimizer = OPTIMIZERS[name](whole, settings)
    for step in range(6):
        give_gradients(whole, step)
        optimizer.step(40 * (step + 1))
        if step == 2:
            state = optimizer.state()
            resumed = {n: torch.nn.Parameter(p.detach().clone()) for n, p in whole.items()}
    other = OPTIMIZERS[name](resumed, settings)
    other.load(state)
    for step in range(3, 6):
        give_gradients(resumed, step)
        other.step(40 * (step + 1))
    assert all(torch.equal(whole[n], resumed[n]) for n in whole)
    assert all(torch.equal(tensor, other.state()[n]) for n, tensor in optimizer.state().items())


def test_a_foreign_state_is_refused():
    optimizer = AdamW(new_parameters(), LearningSettings())
    with pytest.raises(ValueError, match="not the state"):
        optimizer.load(SGD(new_parameters(), LearningSettings(momentum=0.9)).state())
    wrong = optimizer.state() | {"m.a": torch.zeros(2, 2)}
    with pytest.raises(ValueError, match=r"m\.a"):
        optimizer.load(wrong)
