"""Gini index and exact eta estimated from draws, with bounds that hold with probability 1 - DELTA over the draw.

Let F be the distribution of the d nonzero magnitudes, and F^ the empirical distribution of the n nonzero draws, which
are independent given n. By the Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant, for any F,

    P(sup |F - F^| > eps) <= 2 exp(-2 n eps^2) = DELTA,      eps = sqrt(ln(2 / DELTA) / (2 n)).

Outside this event, the draws x_(1) <= … <= x_(n) that are m = ceil(eps n) places away bound the quantiles Q of F:

    x_(j - m) <= Q(v) <= x_(j + m)    for  (j - 1) / n < v <= j / n,

Beyond the draws, the bound is the smallest or largest magnitude of all weights, known from the sums. All bounds below
follow from this and the exact mean and p-masses: the bounds of a tensor hold together with probability 1 - DELTA.

Source: P. Massart, "The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality", Annals of Probability 18 (1990).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sparsight.numerics.kernels.jit import jit

DELTA = 1e-3
"""Probability that any bound of a tensor fails, over the draw."""
CELLS = 2048
"""Most cells in a band. More would make bounds 3 % narrower and take eight times as long."""


@dataclass(frozen=True, eq=False)
class Band:
    """The nonzero draws, ascending, and bounds on the quantiles of their distribution.

    Of more than `CELLS` draws, the band uses `CELLS` evenly spaced ones: y_k = x_(ceil(k n / CELLS)). m is then
    counted in cells, plus one.
    """

    x: np.ndarray  # (n,)
    first: float  # all nonzero magnitudes are at least this
    last: float  # and at most this
    cells: np.ndarray  # (at most CELLS,)
    away: int  # m, at most the number of cells


def band(magnitudes: np.ndarray, first: float, last: float, unit: float = 1.0, delta: float = DELTA) -> Band:
    """The band of ascending drawn `magnitudes`. All nonzero magnitudes of the tensor are within [first, last].

    The band holds magnitudes divided by `unit`, a power of 2.
    """
    x = alive(magnitudes)
    x = x if unit == 1.0 else x.astype(np.float64) / unit
    first, last, n = first / unit, last / unit, len(x)
    if not n:
        x = np.array([last])
        return Band(x, first, last, x, 1)  # no draws: anything from first to last
    eps, cells = math.sqrt(math.log(2 / delta) / (2 * n)), min(n, CELLS)
    thin = x if n == cells else x[-(np.arange(1, cells + 1) * -n // cells) - 1]
    return Band(x, first, last, thin, min(math.ceil(eps * cells) + (n > cells), cells))


def alive(magnitudes: np.ndarray) -> np.ndarray:
    """The nonzero ones of ascending magnitudes."""
    return magnitudes[np.searchsorted(magnitudes, magnitudes.dtype.type(0), side="right") :]


def gini(seen: Band, mean: float) -> tuple[float, float, float]:
    """(lower bound, estimate, upper bound) of the Gini index of the nonzero magnitudes; `mean` is their exact mean.

        G = integral of (2 v - 1) Q(v) dv / mean = 1 - integral of (1 - F(x))^2 dx / mean

    Among all Q in the band with this mean, G is largest if Q follows the lower edge up to some v and the upper edge
    from there. G is smallest if Q is a constant c, or as close to c as the band allows. (The second integral is convex
    in F: it is smallest where F is as constant as the band allows, largest where F is at the band's ends.)
    The estimate is the second form for the draws, corrected by the exact mean.
    """
    return _gini(seen.x, seen.cells, seen.first, seen.last, seen.away, mean)


@jit
def _at(x, j, first, last):
    """x[j], or `first` or `last` beyond its ends."""
    return first if j < 0 else last if j >= len(x) else np.float64(x[j])


@jit
def _weight(a, z, n):
    """n^2 times the integral of 2 v - 1 over cells a..z of n."""
    return np.float64(z * (z - n) - a * (a - n))


@jit
def _bounds(x, first, last, away, mean):
    """Smallest and largest integral of (2 v - 1) Q for Q in the band with this mean."""
    n = len(x)
    goal = n * mean
    lows = highs = low_moment = greatest = 0.0
    for j in range(n):
        low, high, weight = _at(x, j - away, first, last), _at(x, j + away, first, last), _weight(j, j + 1, n)
        lows, highs = lows + low, highs + high
        low_moment, greatest = low_moment + weight * low, greatest + weight * high
    for j in range(n):  # move cells from high to low until the mean fits, the last only in part
        width = _at(x, j + away, first, last) - _at(x, j - away, first, last)
        if highs - width <= goal:
            part = max((highs - goal) / width, 0.0) if width > 0.0 else 0.0
            greatest -= part * width * (_weight(j, j + 1, n) - (1.0 - part))
            break
        highs, greatest = highs - width, greatest - width * _weight(j, j + 1, n)
    a, z, c = 0, away, first  # cells before a are below c, cells from z on above
    below = below_moment = 0.0
    above, above_moment = lows - z * first, low_moment - first * _weight(0, z, n)
    for j in range(n + 1):
        c = _at(x, j, first, last)
        if below + (z - a) * c + above >= goal:
            c = max((goal - below - above) / (z - a), first)
            break
        if j >= away:
            below, below_moment, a = below + c, below_moment + c * _weight(a, a + 1, n), a + 1
        if z < n:
            above, above_moment, z = above - c, above_moment - c * _weight(z, z + 1, n), z + 1
    return (below_moment + c * _weight(a, z, n) + above_moment) / n**2, greatest / n**2


@jit
def _above(x, mean):
    """Integral of (1 - F)^2 for the draws, corrected by linear regression on their known mean.

    To first order, a weight x adds 2 h(x), with h the integral of 1 - F up to x. If the draws miss the mean by more
    than four standard errors, a few weights that were not drawn are the cause, and nothing is corrected.
    """
    n, cell, sampled = len(x), 1.0 / len(x), 0.0
    for j in range(n):
        sampled += x[j] * cell
    found = h = at = variance = covariance = 0.0
    for j in range(n):
        share, off = 1.0 - j * cell, x[j] - sampled
        step = (x[j] - at) * share
        found, h, at = found + step * share, h + step, np.float64(x[j])
        variance, covariance = variance + off * off, covariance + off * h
    variance, covariance = variance * cell, 2.0 * covariance * cell
    missed = sampled - mean
    if variance == 0.0 or missed * missed > 16.0 * variance / n:
        return found
    return found - covariance / variance * missed


@jit
def _gini(x, cells, first, last, away, mean):
    least, greatest = _bounds(cells, first, last, away, mean)
    bottom = max(least / mean, 0.0)
    top = max(min(greatest / mean, 1.0), bottom)
    return bottom, min(max(1.0 - _above(x, mean) / mean, bottom), top), top


def droppable(seen: Band, p: float, mean: float, goal: float) -> tuple[float, float, float]:
    """(lower bound, estimate, upper bound) of the share of smallest weights with a total p-mass of at most `goal`.

    `goal` and the exact `mean` of x^p are per weight. The band bounds this mass directly, and by the mass above it.
    """
    x, y = seen.x.astype(np.float64) ** p, seen.cells.astype(np.float64) ** p
    first, last, n, away = seen.first**p, seen.last**p, len(y), seen.away
    low = (away * first + float(np.sum(y[: n - away]))) / n
    high = (away * last + float(np.sum(y[away:]))) / n
    least = max(_reach(y, away, first, last, goal), _reach(y, -away, first, last, goal - (mean - low)))
    most = min(_reach(y, -away, first, last, goal), _reach(y, away, first, last, goal - (mean - high)))
    most = max(least, most)
    return least, min(max(_reach(x, 0, first, last, goal), least), most), most


@jit
def _reach(y, away, first, last, goal):
    """The largest v up to which the integral of the cells `away` places further is at most the goal."""
    n = len(y)
    left = goal * n
    for j in range(n):
        cell = _at(y, j + away, first, last)
        if cell > left:
            return max(j + left / cell, 0.0) / n
        left -= cell
    return 1.0
