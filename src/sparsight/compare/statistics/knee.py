"""Where a curve bends."""

from __future__ import annotations

import math
from collections.abc import Iterable

LEAST = 0.1
"""Share of the curve's height by which its knee has to lie above the chord."""


def knee(points: Iterable[tuple[float, float]]) -> float | None:
    """The density of the level that lies highest above the straight line from the densest to the sparsest level.

    `points` are (density, value), larger values better; densities on a logarithmic axis, both axes scaled to [0, 1].
    None for fewer than 4 levels, a curve that ends no lower than it begins, or one that nowhere lies 0.1 above the
    line: it has no knee. Points of density 0 or with NaN are left out.
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
