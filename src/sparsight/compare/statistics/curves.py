"""Runs at one density or one cost: read off between two neighbouring levels, never beyond them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from sparsight.numerics.intervals import Mean, paired

Points = Iterable[tuple[float, float | None]]
"""(density or cost, value) of each level of a run, in any order; a level without a value may be None or NaN."""


@dataclass(frozen=True)
class At:
    """A value at one place of a run's curve, and between which levels it was interpolated; None: a level lies there."""

    value: float
    between: tuple[float, float] | None = None


def at(points: Points, place: float, *, log: bool = False) -> At | None:
    """The value of a run at a density, a cost, or whatever the points are by.

    That of the level that lies there (the last given of several), or else on the straight line between its two
    neighbours; with `log`, straight over the logarithm of the place, as suits densities. None if no level lies there
    and either neighbour is missing: nothing is extrapolated. With `log`, nothing is read between density 0 and the next
    level.
    """
    known = dict(sorted((x, y) for x, y in points if y is not None and not math.isnan(y)))
    if place in known:
        return At(known[place])
    for low, high in pairwise(known):
        if low < place < high and not (log and low <= 0):
            scale = math.log if log else float
            share = (scale(place) - scale(low)) / (scale(high) - scale(low))
            return At(known[low] + share * (known[high] - known[low]), (low, high))
    return None


@dataclass(frozen=True)
class PairedAt:
    """The mean difference of two settings at one density or cost, and which seeds had to be interpolated."""

    place: float
    difference: Mean | None  # None: no seed has both settings there
    interpolated: tuple[int, ...]  # seeds, of which one setting or both had no level there
    missing: tuple[int, ...]  # seeds of both settings, of which one does not reach the place


def paired_at(
    a: Mapping[int, Points], b: Mapping[int, Points], place: float, *, log: bool = False, confidence: float = 0.95
) -> PairedAt:
    """`paired` difference a - b by seed at one density or one cost, each run read by `at`."""
    seeds = sorted(a.keys() & b.keys())
    found = {seed: (at(a[seed], place, log=log), at(b[seed], place, log=log)) for seed in seeds}
    both = {seed: (one, other) for seed, (one, other) in found.items() if one is not None and other is not None}
    mine = {seed: one.value for seed, (one, _) in both.items()}
    other = {seed: two.value for seed, (_, two) in both.items()}
    between = tuple(seed for seed, pair in both.items() if any(each.between for each in pair))
    return PairedAt(place, paired(mine, other, confidence), between, tuple(s for s in seeds if s not in both))
