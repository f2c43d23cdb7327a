"""Decisions on numbers alone, and the names under which a rule's numbers are on record.

Every number has a kind: "value:", "distance:", "threshold:" or "reference:", then what it is of. A distance and
its threshold have the same name after the kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from sparsight.train.observation import Observation


def met(sequence: Sequence[float], threshold: float, patience: int = 1) -> bool:
    """Whether each of the last `patience` numbers is below `threshold`, strictly. NaN and infinities never are."""
    last = sequence[-patience:]
    return len(last) == patience and all(math.isfinite(x) and x < threshold for x in last)


def changes(sequence: Sequence[float]) -> list[float]:
    """|x_t - x_(t-1)|, NaN for the first."""
    if not sequence:
        return []
    return [math.nan, *(abs(b - a) for a, b in pairwise(sequence))]


def improvements(losses: Sequence[float]) -> list[float]:
    """(b - x_t) / |b| with b the least number before; NaN for the first. b = 0 is not divided by."""
    found, best = [], math.inf
    for loss in losses:
        known = math.isfinite(best) and math.isfinite(loss)
        found.append((best - loss) / (abs(best) or 1.0) if known else math.nan)
        best = min(best, loss) if math.isfinite(loss) else best
    return found


def recorded(history: Sequence[Observation], name: str) -> list[float]:
    """The numbers on record under `name`; NaN where there is none."""
    return [seen.values.get(name, math.nan) for seen in history]


def in_a_row(patience: int) -> str:
    return f", {patience} evaluations in a row" if patience > 1 else ""
