"""Confidence intervals of shares, of means over seeds, and of differences of either."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

# -- shares --------------------------------------------------------------------------------------------------------


def wilson(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of n independent answers, in [0, 1]. Raises: ValueError for n < 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if n < 1:
        raise ValueError(f"an interval needs at least 1 answer, got {n}")
    z = _z(confidence)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(a: float, b: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Newcombe's interval of a - b, two shares of n answers each, from independent samples.

    Two networks evaluated on the same samples share many errors, so their difference has a narrower interval: see
    `paired_shares`.
    Source: Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine
    17 (1998), method 10.
    """
    (a_low, a_high), (b_low, b_high) = wilson(a, n, confidence), wilson(b, n, confidence)
    return a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)


def paired_shares(only_a: int, only_b: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of (only_a - only_b) / n, the difference of two shares of right answers on the same n samples.

    `only_a` samples are right for a alone, `only_b` for b alone. With s = (only_a + 1) / (n + 2) and
    t = (only_b + 1) / (n + 2): s - t ± z sqrt((s + t - (s - t)^2) / (n + 2)), clipped to [-1, 1].

    Raises: ValueError unless the counts fit n >= 1.
    Source: Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", J. Educational and Behavioral Statistics 37 (2012).
    """
    if n < 1 or only_a < 0 or only_b < 0 or only_a + only_b > n:
        raise ValueError(f"counts of {n} samples must be at least 0 and sum to at most {n}, got {only_a} and {only_b}")
    s, t = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = _z(confidence) * math.sqrt((s + t - (s - t) ** 2) / (n + 2))
    return max(-1.0, s - t - half), min(1.0, s - t + half)


def _z(confidence: float) -> float:
    _check(confidence)
    return NormalDist().inv_cdf((1 + confidence) / 2)


# -- means over seeds ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mean:
    """The mean of n values, the half-width of its interval, and the sample standard deviation (both None if n = 1)."""

    n: int
    mean: float
    half_width: float | None
    deviation: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """mean - half_width and mean + half_width; None for a single value."""
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    @property
    def verdict(self) -> str:
        """Whether the interval is "above" zero, "below" it, or "undecided"; "" without an interval.

        An interval that touches zero, or is NaN, is undecided.
        """
        if self.interval is None:
            return ""
        low, high = self.interval
        return "above" if low > 0 else "below" if high < 0 else "undecided"

    @property
    def p_value(self) -> float | None:
        """The two-sided p-value of Student's t-test that the true mean is 0; None for a single value, NaN for NaN.

        Equal values give 0, or 1 if all are 0.
        """
        if self.deviation is None or math.isnan(self.mean):
            return None if self.deviation is None else math.nan
        if not self.deviation:
            return float(not self.mean)
        from scipy.stats import t

        return float(2 * t.sf(abs(self.mean) * math.sqrt(self.n) / self.deviation, self.n - 1))


def mean(values: Iterable[float | None], confidence: float = 0.95) -> Mean | None:
    """The mean of the values with its two-sided Student-t interval.

    half_width = t((1 + confidence) / 2, n - 1) s / sqrt(n), with the sample standard deviation s = sqrt(sum (x -
    mean)^2 / (n - 1)). Assumes independent, roughly normal values. Ignores None; returns None if no value is left. A
    single value has no deviation or interval. NaN or infinity makes mean, half-width and deviation NaN.

    Raises: ValueError unless 0 < confidence < 1.
    """
    _check(confidence)
    known = [float(value) for value in values if value is not None]
    n = len(known)
    if not n:
        return None
    finite = all(map(math.isfinite, known))
    middle = math.fsum(known) / n if finite else math.nan
    if n == 1:
        return Mean(1, middle, None, None)
    from scipy.special import stdtrit

    s = statistics.stdev(known) if finite else math.nan
    return Mean(n, middle, float(stdtrit(n - 1, (1 + confidence) / 2)) * s / math.sqrt(n), s)


def paired(a: Mapping[int, float | None], b: Mapping[int, float | None], confidence: float = 0.95) -> Mean | None:
    """`mean` of a - b over the common seeds, from values by seed.

    Variation common to both sides cancels. Ignores seeds that one side lacks or has as None; returns None if no seed is
    left. Raises: as `mean`.
    """
    both = [(a[seed], b[seed]) for seed in sorted(a.keys() & b.keys())]
    return mean([x - y for x, y in both if x is not None and y is not None], confidence)


def lower_bound(values: Iterable[float | None], confidence: float = 0.95) -> float | None:
    """The one-sided lower bound of the mean: mean - t(confidence, n - 1) s / sqrt(n).

    None for fewer than two values; NaN as for `mean`. Raises: ValueError unless 0.5 < confidence < 1.
    """
    found = mean(values, both_sides(confidence))
    return None if found is None or found.interval is None else found.interval[0]


def both_sides(confidence: float) -> float:
    """The confidence of the two-sided interval that ends at the one-sided bound."""
    if not 0.5 < confidence < 1:
        raise ValueError(f"the confidence of a bound must be greater than 0.5 and less than 1, got {confidence}")
    return 2 * confidence - 1


def _check(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be greater than 0 and less than 1, got {confidence}")
