"""Holm's correction, for many comparisons at once."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Adjusted p-values, in the order given: the i-th smallest of m is max over j <= i of (m - j + 1) p_j, at most 1.

    Rejecting those <= alpha keeps the probability of any false rejection <= alpha, even for dependent tests. None and
    NaN stand for comparisons that could not be tested: they are returned unchanged and not counted.
    Raises: ValueError for a p-value outside [0, 1].
    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6 (1979).
    """
    tested = [i for i, p in enumerate(p_values) if p is not None and not math.isnan(p)]
    wrong = next((p_values[i] for i in tested if not 0 <= (p_values[i] or 0.0) <= 1), None)
    if wrong is not None:
        raise ValueError(f"a p-value must be in [0, 1], got {wrong}")
    adjusted, least = list(p_values), 0.0
    for rank, i in enumerate(sorted(tested, key=lambda i: p_values[i] or 0.0)):
        least = max(least, min(1.0, (len(tested) - rank) * (p_values[i] or 0.0)))
        adjusted[i] = least
    return tuple(adjusted)
