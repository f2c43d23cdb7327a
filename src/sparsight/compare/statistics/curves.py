"""A run's value at a density or cost, interpolated between levels, never extrapolated."""

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
    """A value of a run's curve, and the places of the two levels it was interpolated between; None: at a level."""

    value: float
    between: tuple[float, float] | None = None


def at(points: Points, place: float, *, log: bool = False) -> At | None:
    """The value of a run at a place: a density, a cost, or any other first coordinate of the points.

    That of the level there (the last one given), otherwise interpolated linearly between the two neighbours; with
    `log`, linearly in the logarithm of the place, as suits densities. None without a neighbour on each side, or, with
    `log`, if one of them is at 0.
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
    """The mean difference of two settings at a density or cost, and the interpolated seeds."""

    place: float
    difference: Mean | None  # None: no seed has both settings there
    interpolated: tuple[int, ...]  # seeds, of which one setting or both had no level there
    missing: tuple[int, ...]  # seeds of both settings, of which one does not reach the place


def paired_at(
    a: Mapping[int, Points], b: Mapping[int, Points], place: float, *, log: bool = False, confidence: float = 0.95
) -> PairedAt:
    """The `paired` difference a - b over seeds at a density or cost, with `at` for each run."""
    seeds = sorted(a.keys() & b.keys())
    found = {seed: (at(a[seed], place, log=log), at(b[seed], place, log=log)) for seed in seeds}
    both = {seed: (one, other) for seed, (one, other) in found.items() if one is not None and other is not None}
    mine = {seed: one.value for seed, (one, _) in both.items()}
    other = {seed: two.value for seed, (_, two) in both.items()}
    between = tuple(seed for seed, pair in both.items() if any(each.between for each in pair))
    return PairedAt(place, paired(mine, other, confidence), between, tuple(s for s in seeds if s not in both))
