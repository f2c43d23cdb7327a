"""The knee of a curve."""

from __future__ import annotations

import math
from collections.abc import Iterable

LEAST = 0.1
"""A knee is at least this share of the curve's height above the chord."""


def knee(points: Iterable[tuple[float, float]]) -> float | None:
    """The density of the level highest above the straight line from the densest to the sparsest level.

    `points` are (density, value), larger values better; densities on a logarithmic axis, both axes scaled to [0, 1].
    None for fewer than 4 levels, a curve that does not fall, or one that is nowhere 0.1 above the line. Skips points of
    density 0 or with NaN.
    Source: Satopää et al., "Finding a 'kneedle' in a haystack", ICDCS Workshops 2011, without its smoothing.
    """
    known = sorted(((x, y) for x, y in points if x > 0 and math.isfinite(y)), reverse=True)
    if len(known) < 4 or known[0][0] == known[-1][0]:
        return None
    (first, top), (last, bottom) = known[0], known[-1]
    if not top > bottom:
        return None
    above = [(y - bottom) / (top - bottom) - 1 + math.log(first / x) / math.log(first / last) for x, y in known]
    highest = max(range(len(known)), key=above.__getitem__)
    return known[highest][0] if above[highest] >= LEAST else None
