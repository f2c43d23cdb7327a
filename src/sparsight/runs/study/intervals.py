"""Means over seeds with their Student-t intervals, and differences paired by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Mean:
    """The mean of n values, the half-width of its interval, and the sample standard deviation (both None if n = 1)."""

    n: int
    mean: float
    half_width: float | None
    deviation: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """mean - half_width and mean + half_width; None from one value."""
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    @property
    def verdict(self) -> str:
        """Where the interval lies: "above" zero, "below" it, "undecided" around it; "" without an interval.

        An interval that touches zero, or is NaN, is undecided.
        """
        if self.interval is None:
            return ""
        low, high = self.interval
        return "above" if low > 0 else "below" if high < 0 else "undecided"


def student_t(probability: float, freedom: float) -> float:
    """The t below which Student's distribution with `freedom` degrees of freedom has `probability`.

    t^2 = freedom y / x, where P(|T| < t) = I_y(1/2, freedom/2) and P(|T| > t) = I_x(freedom/2, 1/2), x + y = 1: each
    taken where it keeps its digits. ValueError unless 0 < probability < 1, freedom > 0.
    """
    if not (0 < probability < 1 and freedom > 0):
        raise ValueError(f"needs 0 < probability < 1 and freedom > 0: got {probability}, {freedom}")
    from scipy.special import betaincinv

    y = betaincinv(0.5, freedom / 2, abs(2 * probability - 1))
    x = betaincinv(freedom / 2, 0.5, 2 * min(probability, 1 - probability))
    return math.copysign(math.sqrt(freedom * y / x), probability - 0.5)


def mean(values: Iterable[float | None], confidence: float = 0.95) -> Mean | None:
    """The mean of the values with its two-sided Student-t interval.

    half_width = t((1 + confidence) / 2, n - 1) s / sqrt(n), with the sample standard deviation
    s = sqrt(sum (x - mean)^2 / (n - 1)). It supposes independent values that are about normally distributed.
    None among the values are left out; None is returned if no value is left. From one value there is neither
    deviation nor interval. A NaN or an infinity makes mean, half-width and deviation NaN.
    ValueError unless 0 < confidence < 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, both excluded: got {confidence}")
    known = [float(value) for value in values if value is not None]
    n = len(known)
    if not n:
        return None
    finite = all(map(math.isfinite, known))
    middle = math.fsum(known) / n if finite else math.nan
    if n == 1:
        return Mean(1, middle, None, None)
    s = statistics.stdev(known) if finite else math.nan
    return Mean(n, middle, student_t((1 + confidence) / 2, n - 1) * s / math.sqrt(n), s)


def paired(a: Mapping[int, float | None], b: Mapping[int, float | None], confidence: float = 0.95) -> Mean | None:
    """`mean` of a - b over the seeds that both have, from their values by seed.

    What varies with the seed in both alike cancels, so that the interval is that of the difference. A seed that one
    side lacks, or whose value is None there, is left out; None is returned if no seed is left. Errors as for `mean`.
    """
    both = [(a[seed], b[seed]) for seed in sorted(a.keys() & b.keys())]
    return mean([x - y for x, y in both if x is not None and y is not None], confidence)
