"""Whether a difference is more than chance.

``permutation``, of two groups: if they are alike, any of the values might as well have been in the other (Fisher's
randomisation test again, for which Pitman gave the form of two groups, "Significance tests which may be applied to
samples from any populations", 1937). The p-value is the share of all ways to divide them with a difference of means at
least as large; exact up to ``_DRAWS`` ways, on drawn ones beyond.

All else is of the same samples, scored twice.

``sign_flip``: if nothing changed, each difference might as well have the other sign (Fisher's randomisation test, "The
design of experiments", 1935, §21). The p-value is the share of all 2ⁿ signs with a mean difference at least as large;
exact up to ``_EXACT`` pairs, on drawn signs beyond. Unlike a t-test it assumes nothing about how losses are
distributed, which is with long tails, and holds for a handful of them.

``bootstrap``: between which bounds the mean difference lies (Efron, 1979; percentiles).

What is drawn is a function of the seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

_EXACT = 14
_DRAWS = 20_000


def differences(before: Mapping[str, float], after: Mapping[str, float]) -> list[float]:
    """after - before of each sample, by id.

    Raises:
        ValueError: not the same samples.
    """
    if before.keys() != after.keys():
        raise ValueError(f"{len(before.keys() ^ after.keys())} samples were scored only once")
    return [after[key] - before[key] for key in sorted(before)]


def sign_flip(values: Sequence[float], *, above: float = 0.0, seed: int = 0) -> float:
    """p of the hypothesis that the mean of ``values`` is not above ``above``; 1 without values.

    Raises:
        ValueError: a value is not finite.
    """
    x_N = _tensor(values) - above
    if not len(x_N):
        return 1.0
    if len(x_N) <= _EXACT:
        codes_D = torch.arange(2 ** len(x_N))
        is_flipped_DN = (codes_D[:, None] >> torch.arange(len(x_N))) % 2 == 1
    else:
        generator = torch.Generator().manual_seed(seed)
        is_flipped_DN = torch.rand(_DRAWS, len(x_N), generator=generator) < 0.5
        is_flipped_DN[0] = False  # what was seen is one of the possibilities, so that p is never 0
    sums_D = torch.where(is_flipped_DN, -x_N, x_N).sum(dim=1)
    # Sums that are equal on paper count as equal.
    is_as_large_D = sums_D >= x_N.sum() - 1e-12 * x_N.abs().sum()
    return float(is_as_large_D.double().mean())


def permutation(values: Sequence[float], others: Sequence[float], *, seed: int = 0) -> float:
    """p of the hypothesis that the mean of ``values`` is not above that of ``others``; 1 if there are none of either.

    Raises:
        ValueError: a value is not finite.
    """
    n, total = len(values), len(values) + len(others)
    x_N = _tensor([*values, *others])
    if n in (0, total):
        return 1.0
    if math.comb(total, n) <= _DRAWS:
        chosen_DK = torch.tensor(list(combinations(range(total), n)))
    else:
        generator = torch.Generator().manual_seed(seed)
        chosen_DK = torch.rand(_DRAWS, total, generator=generator).argsort(dim=1)[:, :n]
        chosen_DK[0] = torch.arange(n)  # what was seen is one of the possibilities, so that p is never 0
    # Of one total, the sum of the one group says what the difference of the means is.
    sums_D = x_N[chosen_DK].sum(dim=1)
    return float((sums_D >= x_N[:n].sum() - 1e-12 * x_N.abs().sum()).double().mean())


def bootstrap(values: Sequence[float], *, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """(lower, upper) bound of the mean.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    x_N = _tensor(values)
    if not len(x_N):
        raise ValueError("the mean of nothing has no bounds")
    generator = torch.Generator().manual_seed(seed)
    chosen_DN = torch.randint(len(x_N), (_DRAWS, len(x_N)), generator=generator)
    tail = (1 - confidence) / 2
    lower, upper = x_N[chosen_DN].mean(dim=1).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return lower, upper


def _tensor(values: Sequence[float]) -> Tensor:
    x_N = torch.tensor(values, dtype=torch.float64)
    if not torch.isfinite(x_N).all():
        raise ValueError("only finite numbers can be compared")
    return x_N
