"""Decisions on recorded numbers, and their names.

A name begins with a kind: "value:", "distance:", "threshold:" or "reference:". A distance and its threshold share the
rest of the name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from sparsight.train.observation import Observation


def met(sequence: Sequence[float], threshold: float, patience: int = 1) -> bool:
    """Whether the last `patience` numbers are all finite and strictly below `threshold`."""
    last = sequence[-patience:]
    return len(last) == patience and all(math.isfinite(x) and x < threshold for x in last)


def changes(sequence: Sequence[float]) -> list[float]:
    """|x_t - x_(t-1)|, NaN for the first."""
    if not sequence:
        return []
    return [math.nan, *(abs(b - a) for a, b in pairwise(sequence))]


def improvements(losses: Sequence[float]) -> list[float]:
    """(b - x_t) / |b| with b the least earlier number, or b - x_t for b = 0; NaN for the first."""
    found, best = [], math.inf
    for loss in losses:
        known = math.isfinite(best) and math.isfinite(loss)
        found.append((best - loss) / (abs(best) or 1.0) if known else math.nan)
        best = min(best, loss) if math.isfinite(loss) else best
    return found


def recorded(history: Sequence[Observation], name: str) -> list[float]:
    """The recorded numbers of that name; NaN if missing."""
    return [seen.values.get(name, math.nan) for seen in history]


def in_a_row(patience: int) -> str:
    return f", {patience} evaluations in a row" if patience > 1 else ""


def less(found: Sequence[float], limit: float, patience: int, before: str, after: str = "") -> str | None:
    """The reason to stop if the last `patience` numbers are below the limit: `before`, the last number, `after`."""
    if not met(found, limit, patience):
        return None
    return f"{before} {found[-1]:.3g}{after}, less than {limit:g}{in_a_row(patience)}"
