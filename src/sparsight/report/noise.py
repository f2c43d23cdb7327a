"""How far a share that was counted, or the difference of two, may be off."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of n independent answers, inside [0, 1]. ValueError for n < 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if n < 1:
        raise ValueError(f"an interval needs at least 1 answer, got {n}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(a: float, b: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Newcombe's interval of a - b, two shares of n answers each, as if the answers were of different samples.

    Two networks judged on the same samples err on many of the same ones, so their difference is better known than that.
    Source: Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine
    17 (1998), method 10.
    """
    (a_low, a_high), (b_low, b_high) = wilson(a, n, confidence), wilson(b, n, confidence)
    return a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)
