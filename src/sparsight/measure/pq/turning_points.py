"""Turning points of the PQ index during pruning: its minimum, its peak, and the phase of the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sparsight.numerics.checks import check_positive

Phase = Literal["regularising", "compressing", "collapsing"]

_AT_ONCE = 3.0  # tolerances above the minimum that confirm it at once
_DROP = 0.25  # a peak is confirmed once the index has lost this share of its rise


@dataclass(frozen=True)
class TurningPoints:
    """Positions in the history given to `turning_points`; None if there is none yet."""

    minimum: int | None  # the lowest index so far; None only if no index is defined
    confirmed: bool  # whether the index has clearly risen since
    confirmed_at: int | None  # the level that confirmed it
    peak: int | None  # the highest index after a confirmed minimum, if it has fallen since
    phase: Phase


def turning_points(densities: Sequence[float], indices: Sequence[float], *, tolerance: float = 0.01) -> TurningPoints:
    """Minimum and peak of the PQ index along falling density, and the phase at the last level.

    The rule, level by level:
      The minimum is the lowest index so far, the first of equals. Two levels in a row more than `tolerance` above
      it, or one level more than 3 `tolerance` above it, confirm it; then it stays.
      From there the peak is the highest index so far, the first of equals. It is confirmed once the index has
      fallen by more than `tolerance` and more than a quarter of its rise above the minimum; then it stays.
      Before a confirmed minimum the network is "regularising": the remaining weights become more alike while accuracy
      holds. Then it is "compressing": they become less alike, at some cost in accuracy. After a confirmed peak it is
      "collapsing".

    Robust to errors up to `tolerance` at single levels. Skips NaN (an undefined index). Raises: ValueError for
    different lengths, densities outside [0, 1] or rising, an index outside [0, 1], or tolerance <= 0.
    Source: the hypothesis of Diao et al., ICLR 2023 (sparsity falls, rises, falls); the rule is ours.
    """
    _check(densities, indices, tolerance)
    levels = [(i, v) for i, v in enumerate(indices) if not math.isnan(v)]
    low, confirmed_at = _minimum(levels, tolerance)
    if low is None:
        return TurningPoints(None, False, None, None, "regularising")
    if confirmed_at is None:
        return TurningPoints(low, False, None, None, "regularising")
    peak = _peak(levels, low, indices[low], tolerance)
    return TurningPoints(low, True, confirmed_at, peak, "compressing" if peak is None else "collapsing")


def _minimum(levels: Sequence[tuple[int, float]], tolerance: float) -> tuple[int | None, int | None]:
    """The minimum, and the level confirming it."""
    low: tuple[int, float] | None = None
    above = 0
    for i, value in levels:
        if low is None or value < low[1]:
            low, above = (i, value), 0
            continue
        above = above + 1 if value > low[1] + tolerance else 0
        if above == 2 or value > low[1] + _AT_ONCE * tolerance:
            return low[0], i
    return (None, None) if low is None else (low[0], None)


def _peak(levels: Sequence[tuple[int, float]], low: int, least: float, tolerance: float) -> int | None:
    peak, highest = low, least
    for i, value in levels:
        if i <= low:
            continue
        if value > highest:
            peak, highest = i, value
        elif highest - value > max(tolerance, _DROP * (highest - least)) and highest > least + tolerance:
            return peak
    return None


def _check(densities: Sequence[float], indices: Sequence[float], tolerance: float) -> None:
    if len(densities) != len(indices):
        raise ValueError(f"there must be as many densities as indices, got {len(densities)} and {len(indices)}")
    check_positive(tolerance=tolerance)
    for i, density in enumerate(densities):
        if not 0 <= density <= 1:
            raise ValueError(f"a density must be in [0, 1], got {density} at level {i}")
        if i and density > densities[i - 1]:
            raise ValueError(f"densities must not rise, got {density} after {densities[i - 1]}")
    for i, value in enumerate(indices):
        if not math.isnan(value) and not 0 <= value <= 1:
            raise ValueError(f"a PQ index must be in [0, 1], got {value} at level {i}")
