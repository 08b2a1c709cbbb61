"""Whether what comes in has changed: ADWIN and Page-Hinkley on a number for each sample, such as its loss before it was
learnt.

``Adwin`` (Bifet and Gavaldà, "Learning from time-changing data with adaptive windowing",
https://doi.org/10.1137/1.9781611972771.42) keeps a window of the newest numbers, as long as it can be: as soon as the
means of an older and a newer part differ by more than chance allows, the older part goes. With n₀ and n₁ numbers in
the parts, W in the window, variance σ²::

    ε = √(2 σ² δ'/m) + 2/3 δ'/m,    1/m = 1/n₀ + 1/n₁,    δ' = ln(2 ln(W)/δ)

(the last term is for numbers in [0, 1]; for others it only delays, when they are larger, or hurries). The window is a
histogram of O(log W) buckets, each twice as large as a newer one.

``PageHinkley`` (Page, "Continuous inspection schemes", 1954) sums what lies above the mean by more than δ; when the sum
has risen by λ from its least, the mean has risen. δ and λ are in the units of the numbers. With numbers of standard
deviation 1 a false alarm comes about every e^(2δλ) / 2δ² of them, and a change by c is seen after λ / (c - δ): with
δ = 0.25 and λ = 25, every 2,000,000 and, for c = 0.5, after 100 at most. The δ = 0.005 that libraries have needs λ in
the hundreds.
"""

from __future__ import annotations

import math

import msgspec


class AdwinState(msgspec.Struct, frozen=True):
    rows: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Row i has buckets of 2^i numbers, newest first: their sum, and the sum of squared distances from their mean."""
    num_seen: int = 0


class Adwin:
    """
    Args:
        delta: probability of a false alarm, at each test.
        every: numbers between two tests.
        max_buckets: of a size.
        min_part: numbers that a part must have.
    """

    def __init__(self, *, delta: float = 0.002, every: int = 8, max_buckets: int = 5, min_part: int = 5) -> None:
        self._delta = delta
        self._every = every
        self._max_buckets = max_buckets
        self._min_part = min_part
        self._rows: list[list[tuple[float, float]]] = []
        self._num_seen = 0

    @property
    def width(self) -> int:
        """Numbers in the window."""
        return sum(len(row) << i for i, row in enumerate(self._rows))

    @property
    def mean(self) -> float:
        """Of the window; 0 without any."""
        return math.fsum(total for row in self._rows for total, _ in row) / max(1, self.width)

    def update(self, value: float) -> bool:
        """Whether the mean has changed, which has made the window shorter.

        Raises:
            ValueError: not a finite number.
        """
        self._num_seen += 1
        self._insert(_finite(value))
        has_changed = False
        if self._num_seen % self._every == 0:
            while self._is_split():
                has_changed = True
                self._drop_oldest()
        return has_changed

    def _insert(self, value: float) -> None:
        new = (value, 0.0)
        for i in range(len(self._rows) + 1):
            if i == len(self._rows):
                self._rows.append([])
            row = self._rows[i]
            row.insert(0, new)
            if len(row) <= self._max_buckets:
                return
            (sum_a, squares_a), (sum_b, squares_b) = row.pop(), row.pop()
            # Of two parts of n numbers each: the squares within, and between.
            between = (sum_a - sum_b) ** 2 / (2 << i)
            new = (sum_a + sum_b, squares_a + squares_b + between)

    def _is_split(self) -> bool:
        """Whether any older part has another mean than the rest."""
        width, mean = self.width, self.mean
        buckets = [(1 << i, *bucket) for i in reversed(range(len(self._rows))) for bucket in reversed(self._rows[i])]
        total = mean * width
        variance = math.fsum(s + n * (t / n - mean) ** 2 for n, t, s in buckets) / max(1, width)
        n0, total0 = 0, 0.0
        for n, t, _ in buckets[:-1]:
            n0, total0 = n0 + n, total0 + t
            n1 = width - n0
            if min(n0, n1) < self._min_part:
                continue
            delta = math.log(2 * math.log(width) / self._delta)
            one_by_m = 1 / n0 + 1 / n1
            epsilon = math.sqrt(2 * variance * delta * one_by_m) + 2 / 3 * delta * one_by_m
            if abs(total0 / n0 - (total - total0) / n1) > epsilon:
                return True
        return False

    def _drop_oldest(self) -> None:
        self._rows[-1].pop()
        while self._rows and not self._rows[-1]:
            self._rows.pop()

    def state(self) -> AdwinState:
        return AdwinState(tuple(tuple(row) for row in self._rows), self._num_seen)

    def load(self, state: AdwinState) -> None:
        self._rows = [list(row) for row in state.rows]
        self._num_seen = state.num_seen


class PageHinkleyState(msgspec.Struct, frozen=True):
    num_seen: int = 0
    """Since the last alarm."""
    mean: float = 0.0
    risen: float = 0.0
    fallen: float = 0.0
    least: float = 0.0
    """Of ``risen``."""
    most: float = 0.0
    """Of ``fallen``."""


class PageHinkley:
    """
    Args:
        threshold: λ. delta: δ. min_seen: numbers before the first alarm.
        fading: of the sums, at each number.
        rise, fall: of the mean, which of them are looked for.
    """

    def __init__(
        self,
        *,
        threshold: float = 25.0,
        delta: float = 0.25,
        min_seen: int = 30,
        fading: float = 0.9999,
        rise: bool = True,
        fall: bool = True,
    ) -> None:
        self._threshold = threshold
        self._delta = delta
        self._min_seen = min_seen
        self._fading = fading
        self._rise = rise
        self._fall = fall
        self._state = PageHinkleyState()

    def update(self, value: float) -> bool:
        """Whether the mean has changed, which begins everything anew.

        Raises:
            ValueError: not a finite number.
        """
        s = self._state
        num_seen = s.num_seen + 1
        mean = s.mean + (_finite(value) - s.mean) / num_seen
        risen = self._fading * s.risen + (value - mean - self._delta)
        fallen = self._fading * s.fallen + (value - mean + self._delta)
        s = PageHinkleyState(num_seen, mean, risen, fallen, min(s.least, risen), max(s.most, fallen))
        is_above = self._rise and s.risen - s.least > self._threshold
        is_below = self._fall and s.most - s.fallen > self._threshold
        has_changed = num_seen >= self._min_seen and (is_above or is_below)
        self._state = PageHinkleyState() if has_changed else s
        return has_changed

    def state(self) -> PageHinkleyState:
        return self._state

    def load(self, state: PageHinkleyState) -> None:
        self._state = state


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"not a finite number: {value}")
    return value
