"""SGD and AdamW on named parameters, with a state that is a flat dictionary of tensors.

torch's own optimizers number their parameters and pickle their state; these name them, so that the state goes into
safetensors and comes back to the bit. AdamW: https://arxiv.org/abs/1711.05101.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from lifelong.learning.settings import LearningSettings

Parameters = Mapping[str, torch.nn.Parameter]


class Optimizer(Protocol):
    def __init__(self, parameters: Parameters, settings: LearningSettings) -> None: ...

    def step(self, num_tokens: int) -> None:
        """Move the parameters along their ``grad``, which are taken away. ``num_tokens``: they were computed from."""
        ...

    def state(self) -> dict[str, Tensor]:
        """A copy. Empty for a method that remembers nothing."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError: not the state of this method and these parameters."""
        ...


def take_gradients(parameters: Parameters, max_norm: float) -> tuple[list[Tensor], list[Tensor]]:
    """(parameters, gradients) of those that have one; the gradients scaled to a global norm ≤ ``max_norm`` (0: any)."""
    with_gradient = [p for p in parameters.values() if p.grad is not None]
    gradients = [p.grad for p in with_gradient if p.grad is not None]
    for parameter in with_gradient:
        parameter.grad = None
    if max_norm and gradients:
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (max_norm / norm.clamp(min=max_norm)))
    return [p.data for p in with_gradient], gradients


class SGD:
    """v ← μ v + g;  θ ← θ - η (v + λ θ)."""

    def __init__(self, parameters: Parameters, settings: LearningSettings) -> None:
        self._parameters = parameters
        self._settings = settings
        self._velocity = {n: torch.zeros_like(p.data) for n, p in parameters.items()} if settings.momentum else {}

    def step(self, num_tokens: int) -> None:
        s = self._settings
        moving = {n: p for n, p in self._parameters.items() if p.grad is not None}
        if not moving:
            return
        theta, g = take_gradients(moving, s.max_grad_norm)
        if s.momentum:
            v = [self._velocity[n] for n in moving]
            torch._foreach_mul_(v, s.momentum)
            torch._foreach_add_(v, g)
            g = v
        torch._foreach_mul_(theta, 1 - s.learning_rate * s.weight_decay)
        torch._foreach_add_(theta, g, alpha=-s.learning_rate)

    def state(self) -> dict[str, Tensor]:
        return {f"velocity.{n}": v.clone() for n, v in self._velocity.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        _copy_all(state, {f"velocity.{n}": v for n, v in self._velocity.items()})


class AdamW:
    """Adam with decoupled weight decay, and a second moment whose half-life is constant in tokens.

    β₂' = β₂^(B'/B) for a step from B' tokens, B being ``reference_tokens`` (https://arxiv.org/abs/2507.07101): a lone
    fact does not shake the estimates that many samples made. The bias correction is 1 - Π β₂'.
    """

    def __init__(self, parameters: Parameters, settings: LearningSettings) -> None:
        self._parameters = parameters
        self._settings = settings
        self._m = {n: torch.zeros_like(p.data) for n, p in parameters.items()}
        self._v = {n: torch.zeros_like(p.data) for n, p in parameters.items()}
        # On the CPU and in float64 wherever the parameters are: products over thousands of steps.
        self._products = torch.ones(2, dtype=torch.float64)

    def step(self, num_tokens: int) -> None:
        s = self._settings
        moving = {n: p for n, p in self._parameters.items() if p.grad is not None}
        if not moving:
            return
        theta, g = take_gradients(moving, s.max_grad_norm)
        beta1, beta2 = s.beta1, s.beta2 ** (num_tokens / s.reference_tokens)
        self._products *= torch.tensor([beta1, beta2], dtype=torch.float64)
        correction1, correction2 = (1 - self._products).tolist()
        m, v = [self._m[n] for n in moving], [self._v[n] for n in moving]

        torch._foreach_mul_(theta, 1 - s.learning_rate * s.weight_decay)
        torch._foreach_lerp_(m, g, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, g, g, 1 - beta2)
        denominator = torch._foreach_sqrt(v)
        torch._foreach_div_(denominator, correction2**0.5)
        torch._foreach_add_(denominator, s.eps)
        torch._foreach_addcdiv_(theta, m, denominator, -s.learning_rate / correction1)

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self._all().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        _copy_all(state, self._all())

    def _all(self) -> dict[str, Tensor]:
        moments = {f"m.{n}": t for n, t in self._m.items()} | {f"v.{n}": t for n, t in self._v.items()}
        return moments | {"products": self._products}


def _copy_all(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    if source.keys() != target.keys():
        odd = sorted(source.keys() ^ target.keys())
        raise ValueError(f"not the state of this optimizer and these parameters: {odd[:3]} … on one side only")
    for name, tensor in target.items():
        if source[name].shape != tensor.shape:
            raise ValueError(f"{name}: {tuple(source[name].shape)} in the state, {tuple(tensor.shape)} here")
        tensor.copy_(source[name])
