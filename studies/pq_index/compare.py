"""The arithmetic of the study: curves on a common axis, the shape of a trajectory, what SAP removes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparsight.measure.pq import turning_points

Curve = Sequence[tuple[float, float]]
"""(density, value) of the levels of one run."""


def at_density(curve: Curve, density: float) -> float | None:
    """The curve at a density: linear in log density between the two levels around it.

    None outside the densities of the curve: nothing is extrapolated. Levels of equal density count as their mean.
    """
    together: dict[float, list[float]] = {}
    for d, value in curve:
        if d > 0:
            together.setdefault(d, []).append(value)
    points = sorted((d, math.fsum(values) / len(values)) for d, values in together.items())
    if not points or not points[0][0] <= density <= points[-1][0]:
        return None
    for (d0, v0), (d1, v1) in itertools.pairwise(points):
        if d0 <= density <= d1:
            share = (math.log(density) - math.log(d0)) / (math.log(d1) - math.log(d0))
            return v0 + share * (v1 - v0)
    return points[0][1]


def at_epochs(curve: Sequence[tuple[float, float]], epochs: float) -> float | None:
    """The value of the last level that `epochs` pay for, None if they pay for none; `curve` is (epochs, value)."""
    paid = [point for point in curve if point[0] <= epochs + 1e-9]
    return paid[-1][1] if paid else None


def sparsest_within(levels: Sequence[tuple[float, float, float]], epochs: float, points: float) -> float | None:
    """The least density whose accuracy is within `points` of the first level's, among levels that `epochs` pay for.

    `levels` are (epochs needed, density, validation accuracy), dense first. Accuracies in [0, 1], points in hundredths.
    """
    if not levels:
        return None
    floor = levels[0][2] - points / 100 - 1e-12
    near = [d for needed, d, accuracy in levels if needed <= epochs + 1e-9 and accuracy >= floor]
    return min(near, default=None)


@dataclass(frozen=True)
class Shape:
    """What the PQ index does along falling density: positions of its minimum and its peak, and a word."""

    falls: bool  # the minimum lies more than the tolerance below the dense network's index
    minimum: int | None
    rises: bool  # beyond doubt, after the minimum
    peak: int | None
    falls_again: bool  # from a peak, beyond doubt

    @property
    def word(self) -> str:
        parts = [
            name for name, is_so in (("falls", self.falls), ("rises", self.rises), ("falls", self.falls_again)) if is_so
        ]
        return ", ".join(parts) or "flat"


def shape(densities: Sequence[float], indices: Sequence[float | None], tolerance: float = 0.01) -> Shape:
    """The shape by the rule of `turning_points`; an index that is not known (None) is passed over."""
    values = [math.nan if v is None else v for v in indices]
    found = turning_points(densities, values, tolerance=tolerance)
    first = next((v for v in values if not math.isnan(v)), math.nan)
    falls = found.minimum is not None and first - values[found.minimum] > tolerance
    return Shape(falls, found.minimum, found.confirmed, found.peak, found.peak is not None)


def retained(d: int, index: float, p: float, q: float, eta: float) -> float:
    """r = d (1 + eta)^(-q / (q - p)) (1 - I)^(p q / (q - p)): what the bound lets a group keep (float64)."""
    return d * (1 + eta) ** (-q / (q - p)) * (1 - index) ** (p * q / (q - p))


def count(d: int, index: float, p: float, q: float, eta: float, gamma: float, beta: float) -> int:
    """c = floor(min(gamma (d - r), beta d)), at least 0: what SAP removes of a group of d weights with that index.

    A value within 1e-9 d of a whole number is that number, as the specification of the rounding says.
    """
    wanted = max(0.0, min(gamma * (d - retained(d, index, p, q, eta)), beta * d))
    near = round(wanted)
    return near if abs(wanted - near) <= 1e-9 * max(1, d) else math.floor(wanted)
