"""Gini index and exact eta from a random sample, with bounds that hold but for one draw in 10^9.

One weight of each block of `every` is counted, independently. Let F(x) be the share of all weights whose magnitude
is at most x, F^(x) that in the sample, of d / every weights. By Bernstein's inequality, with a union bound over the
at most 2^18 ends of bins, but for a probability of 10^-9 at all of them

    (F - F^)^2 <= c (F (1 - F) + |F - F^| / 3),    c = 2 ln(2^19 10^9) every / d.

The variance of a stratified sample is no larger than that of an unstratified one, so F (1 - F) may stand there.
Tensors that were sampled at different rates may be taken together at the lowest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sparsight.analysis.histogram import Bins, count_up_to
from sparsight.numerics.kernels.jit import jit

RISK = 1e-9
"""Probability that a bound does not hold, over the drawing of the sample."""
_LOG = math.log(2 * (1 << 18) / RISK)


@dataclass(frozen=True, eq=False)
class Envelope:
    """Bins in ascending order, and between which shares of the weights lie up to their ends."""

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray  # in the sample, up to and including the bin
    least: np.ndarray  # one more than bins: the first is of what lies below them all
    most: np.ndarray
    smallest: float
    largest: float
    zeros: float  # share of zeros, known


def envelope(bins: Bins, zeros: int, smallest: float, largest: float) -> Envelope:
    """`zeros`, `smallest` and `largest` are of all weights, not of the sample."""
    total, share, least, most = _shares(bins.count, zeros, 2 * _LOG * bins.every)
    return Envelope(bins.low, bins.high, share, least, most, smallest, largest, zeros / total)


@jit
def _shares(count, zeros, scale):
    """The total, the sample's share up to each bin's end, and between which the true one lies; zeros are known."""
    total = 0
    for i in range(len(count)):
        total += count[i]
    known, c = zeros / total, scale / total
    n = len(count)
    share, least, most = np.empty(n), np.empty(n + 1), np.empty(n + 1)
    so_far = 0
    for i in range(n + 1):
        at = so_far / total
        least[i] = min(max(at - _deviation(1.0 - at, c), known), 1.0)
        most[i] = min(max(at + _deviation(at, c), known), 1.0)
        if i < n:
            so_far += count[i]
            share[i] = so_far / total
    return total, share, least, most


@jit
def _deviation(share, c):
    """Largest t with t^2 <= c ((s + t)(1 - s - t) + t / 3)."""
    b = c * (4 / 3 - 2 * share)
    return (b + math.sqrt(b * b + 4 * (1 + c) * c * share * (1 - share))) / (2 * (1 + c))


def gini_of_sample(bins: Bins, seen: Envelope, mean: float) -> tuple[float, float]:
    """Gini index and how far off it may be; `mean` is the exact mean magnitude.

    With S = 1 - F, whose integral over x is the mean,

        G = integral of F S, divided by the mean = 1 - integral of S^2, divided by the mean.

    F lies in the envelope, and inside a bin between those of its ends. The first form tells more about the bulk,
    the second about a heavy tail; both bounds hold at once. The value is the second form of the sample, corrected for
    what is known of its mean by linear regression.
    """
    if mean <= 0:
        return 0.0, 0.0
    first = seen.smallest if seen.zeros == 0 else 0.0
    return _gini(first, seen.largest, bins.low, bins.high, seen.share, seen.least, seen.most, mean)


@jit
def _bounds(first, last, low, high, least, most):
    """Least and greatest integral of F S, and of S^2, up to `last`.

    F is 0 up to `first`, and between bins what it is at the end of the one before.
    """
    bulk_low = bulk_high = 0.0
    above_low = above_high = below = first
    bins = len(low)
    for k in range(2 * bins + 1):  # a gap, a bin, a gap, …, a gap
        i = k // 2
        if k % 2:
            width, a, b = high[i] - low[i], least[i], most[i + 1]
            below = high[i]
        else:
            width = (low[i] if i < bins else last) - below
            a, b = least[i], (most[i] if i < bins else 1.0)
        f, g = a * (1.0 - a), b * (1.0 - b)
        bulk_low += width * min(f, g)
        bulk_high += width * (0.25 if a <= 0.5 <= b else max(f, g))
        above_low += width * (1.0 - b) ** 2
        above_high += width * (1.0 - a) ** 2
    return bulk_low, bulk_high, above_low, above_high


@jit
def _above(low, high, share, mean):
    """Integral of S^2 by the sample, with its mean put right.

    A weight x adds 2 h(x), h the integral of S up to x, to first order; regressing this on x says by how much the
    integral is too large where the sample's mean is.
    """
    above = h = at = sampled = 0.0
    x1 = x2 = y1 = xy = 0.0
    for i in range(len(low)):
        x = low[i] + (high[i] - low[i]) / 2
        above += (x - at) * (1.0 - sampled) ** 2
        h += (x - at) * (1.0 - sampled)
        n = share[i] - sampled
        x1, x2, y1, xy = x1 + n * x, x2 + n * x * x, y1 + n * 2.0 * h, xy + n * 2.0 * h * x
        at, sampled = x, share[i]
    variance = x2 - x1 * x1
    return above - (xy - x1 * y1) / variance * (x1 - mean) if variance > 0.0 else above


@jit
def _gini(first, last, low, high, share, least, most, mean):
    first, last = min(first, low[0]), max(last, high[-1])
    bulk_low, bulk_high, above_low, above_high = _bounds(first, last, low, high, least, most)
    bottom, top = max(bulk_low / mean, 1 - above_high / mean, 0.0), min(bulk_high / mean, 1 - above_low / mean, 1.0)
    value = min(max(1 - _above(low, high, share, mean) / mean, bottom), top)
    return value, max(top - value, value - bottom)


def droppable_of_sample(bins: Bins, seen: Envelope, p: float, goal: float, unit: float) -> tuple[int, int, int]:
    """How many of the smallest weights hold at most `goal` of sum (|w| / unit)^p: (certainly, probably, at most)."""
    d = bins.total
    middle = bins.low + (bins.high - bins.low) / 2
    near = count_up_to(middle / unit, bins.count, p, goal)
    large = np.concatenate([[0.0], bins.high, [max(seen.largest, bins.high[-1])]])
    shares = np.diff(np.concatenate([[0.0, seen.zeros], seen.least[1:], [1.0]]))
    least = count_up_to(large / unit, np.maximum(shares, 0.0) * d, p, goal)
    first = 0.0 if seen.zeros else min(seen.smallest, bins.low[0])
    small = np.concatenate([[first], bins.low])
    shares = np.diff(np.concatenate([[0.0], seen.most]))
    most = count_up_to(small / unit, np.maximum(shares, 0.0) * d, p, goal)
    least, most = max(int(least), round(seen.zeros * d)), min(math.ceil(most), d)
    return least, min(max(int(near), least), most), most
