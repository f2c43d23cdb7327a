"""Gini index and exact eta from draws, within bounds that hold with probability 1 - DELTA over the draw.

Let F be the distribution of the d magnitudes that are not 0, and F^ that of the n draws that fell among them: given n,
these are independent. By the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant, whatever F,

    P(sup |F - F^| > eps) <= 2 exp(-2 n eps^2) = DELTA,      eps = sqrt(ln(2 / DELTA) / (2 n)).

Otherwise the quantiles Q of F lie between those of the draws x_(1) <= … <= x_(n), m = ceil(eps n) places away:

    x_(j - m) <= Q(v) <= x_(j + m)    for  (j - 1) / n < v <= j / n,

where beyond the draws the smallest and the largest magnitude of all stand, which the sums know. From this and from the
exact mean and p-masses follow all bounds below; so all those of a tensor hold at once, with probability 1 - DELTA.

Source: P. Massart, "The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality", Annals of Probability 18 (1990).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

DELTA = 1e-3
"""Probability that a bound on a tensor does not hold, over the drawing."""


@dataclass(frozen=True, eq=False)
class Band:
    """The draws that are not 0, ascending, and between which numbers the quantiles of their law lie."""

    x: np.ndarray  # (n,), float64
    first: float  # no magnitude but 0 is below
    last: float  # none is above
    away: int  # m

    def cells(self, p: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x^p at least, by the draws, and at most, in n cells of probability 1 / n."""
        y, (first, last) = self.x**p, (np.full(self.away, v**p) for v in (self.first, self.last))
        return np.concatenate([first, y[: len(y) - self.away]]), y, np.concatenate([y[self.away :], last])


def band(magnitudes: np.ndarray, first: float, last: float, delta: float = DELTA) -> Band:
    """`magnitudes` are of the draws, ascending, and all that are not 0, of all weights, are from `first` to `last`."""
    x = magnitudes[np.searchsorted(magnitudes, 0.0, side="right") :].astype(np.float64)
    if not len(x):
        return Band(np.array([last]), first, last, 1)  # no draw: anything between the two
    return Band(x, first, last, min(math.ceil(math.sqrt(math.log(2 / delta) / 2 * len(x))), len(x)))


def gini(seen: Band, mean: float) -> tuple[float, float, float]:
    """(least, probable, greatest) Gini index of the magnitudes that are not 0; `mean` is their exact mean.

        G = integral of (2 v - 1) Q(v) dv / mean = 1 - integral of (1 - F(x))^2 dx / mean

    Among all Q in the band that have this mean, the greatest G is that of low up to some v and high from there; the
    least that of a constant c, or what is nearest to it in the band. (Of the second integral, which is convex in F, the
    least is where F is as constant as the band allows, the greatest where it is at the band's ends.)
    """
    low, x, high = seen.cells()
    n, goal = len(x), len(x) * mean
    weight = (2 * np.arange(n) + 1.0 - n) / n**2  # integral of 2 v - 1 over a cell
    up_to = [np.concatenate([[0.0], np.cumsum(y)]) for y in (low, high, weight * low, weight * high)]
    lows, highs, low_moments, high_moments = up_to
    sums, moments = lows + (highs[-1] - highs), low_moments + (high_moments[-1] - high_moments)
    switch = float(np.max(high - low)) / (2 * n) ** 2  # what a switch within a cell adds at most
    greatest = float(np.interp(goal, sums[::-1], moments[::-1])) + switch
    i = np.arange(n + 2)  # c goes through the ends of all cells; those before a are below c, those from z on above
    c, a, z = np.concatenate([low[:1], x, high[-1:]]), np.clip(i - seen.away, 0, n), np.clip(i + seen.away, 0, n)
    sums = highs[a] + c * (z - a) + (lows[-1] - lows[z])
    moments = high_moments[a] + c * ((z * (z - n) - a * (a - n)) / n**2) + (low_moments[-1] - low_moments[z])
    bottom = max(float(np.interp(goal, sums, moments)) / mean, 0.0)
    top = max(min(greatest / mean, 1.0), bottom)
    return bottom, min(max(1.0 - _above(x, mean) / mean, bottom), top), top


def _above(x: np.ndarray, mean: float) -> float:
    """Integral of (1 - F)^2 by the draws, corrected for what is known of their mean by linear regression.

    A weight x adds 2 h(x), h the integral of 1 - F up to x, to first order. Where the mean is missed by more than four
    standard errors, it is a few weights that were not drawn, and nothing is corrected.
    """
    n = len(x)
    steps, above = np.diff(x, prepend=0.0), 1.0 - np.arange(n) / n
    found, off = float(steps @ above**2), x - x.mean()
    variance, missed = float(off @ off) / n, float(x.mean()) - mean
    if variance == 0.0 or missed**2 > 16 * variance / n:
        return found
    return found - float(off @ (2 * np.cumsum(steps * above))) / n / variance * missed


def droppable(seen: Band, p: float, mean: float, goal: float) -> tuple[float, float, float]:
    """(least, probable, greatest) share of the smallest that hold at most `goal` of the p-mass, both for each weight.

    `mean` is the exact mean of x^p. What the smallest hold is bounded by the band below, and by what it leaves above.
    """
    low, y, high = seen.cells(p)
    below, above = float(np.sum(low)) / len(y), float(np.sum(high)) / len(y)
    least = max(_reach(high, goal), _reach(low, goal - (mean - below)))
    most = max(min(_reach(low, goal), _reach(high, goal - (mean - above))), least)
    return least, min(max(_reach(y, goal), least), most), most


def _reach(cells: np.ndarray, goal: float) -> float:
    """Up to which v the integral of these cells, which ascend, is at most the goal."""
    sums = np.cumsum(cells)
    wanted = goal * len(cells)
    at = int(np.searchsorted(sums, wanted, side="right"))
    if at == len(cells):
        return 1.0
    return max(at + (wanted - (sums[at - 1] if at else 0.0)) / cells[at], 0.0) / len(cells)
