"""A-GEM: no step that makes the past worse, to first order.

Chaudhry et al., "Efficient lifelong learning with A-GEM", https://arxiv.org/abs/1812.00420, eq. 11. With g the gradient
on new samples and g_ref that on old ones, all parameters together::

    g̃ = g                                       if g·g_ref ≥ 0
    g̃ = g - (g·g_ref / g_ref·g_ref) g_ref       else

the nearest to g of all that have g̃·g_ref ≥ 0. The old samples only forbid; they are not learnt. The length of g_ref
makes no difference.
"""

from __future__ import annotations

import torch

from lifelong.learning.recipe import Gradients


def project(new: Gradients, old: Gradients) -> Gradients:
    """g̃ for g = ``new`` and g_ref = ``old``; a parameter that is in one of them only has a gradient of 0 in the other.

    It is a ``recipe.Combine``.
    """
    # In float64: a difference of many products that may nearly cancel.
    zero = torch.zeros((), dtype=torch.float64)
    dot = sum(((g.double() * old[name].double()).sum().cpu() for name, g in new.items() if name in old), zero)
    if dot >= 0:
        return new
    square = sum(((g.double() ** 2).sum().cpu() for g in old.values()), zero)
    share = float(dot / square)
    projected = {name: -share * g for name, g in old.items()}
    for name, g in new.items():
        projected[name] = g + projected[name] if name in projected else g
    return projected
