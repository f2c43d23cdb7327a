"""Quantiles of Student's t distribution."""

from __future__ import annotations

import math


def student_t(probability: float, freedom: float) -> float:
    """The t below which Student's distribution with `freedom` degrees of freedom has `probability`.

    By bisection, at x = freedom / (freedom + t^2), on the smaller of P(|T| > t) = I_x(freedom / 2, 1 / 2) and
    P(|T| < t) = I_(1 - x)(1 / 2, freedom / 2). ValueError unless 0 < probability < 1, freedom > 0.
    """
    if not (0 < probability < 1 and freedom > 0):
        raise ValueError(f"needs 0 < probability < 1 and freedom > 0: got {probability}, {freedom}")
    if probability <= 0.5:
        return -student_t(1 - probability, freedom) if probability < 0.5 else 0.0
    outside, inside = 2 * (1 - probability), 2 * probability - 1

    def too_small(t: float) -> bool:
        x, y = freedom / (freedom + t * t), t * t / (freedom + t * t)
        if outside < 0.5:
            return _beta(freedom / 2, 0.5, x, y) > outside
        return _beta(0.5, freedom / 2, y, x) < inside

    low, high = 0.0, 1.0
    while too_small(high):
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return high


def _beta(a: float, b: float, x: float, y: float) -> float:
    """Regularised incomplete beta function I_x(a, b), with y = 1 - x given apart to keep its digits.

    The continued fraction of the beta distribution converges fast for x < (a + 1) / (a + b + 2); beyond that,
    I_x(a, b) = 1 - I_y(b, a).
    """
    if x <= 0 or y <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _fraction(b, a, y, x)
    return _fraction(a, b, x, y)


def _fraction(a: float, b: float, x: float, y: float) -> float:
    log_x = math.log1p(-y) if y < 0.5 else math.log(x)
    log_y = math.log1p(-x) if x < 0.5 else math.log(y)
    front = math.exp(a * log_x + b * log_y + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)) / a
    c, d, value = 1.0, 0.0, 1.0
    for step in range(1, 10_000):  # modified Lentz
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + term * d)
        c = 1 + term / c
        value *= c * d
        if abs(c * d - 1) < 4e-16:
            break
    return front / value
