"""The PQI bound: how many of d weights have to stay, given their PQ index, and how many may go."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from sparsight.measure.pq.sums import check_pair
from sparsight.numerics.checks import check_not_negative
from sparsight.numerics.exact import exact

_SNAP = 1e-9


def retained_bound(
    count: float | Tensor, index: float | Tensor, p: float, q: float, eta: float = 0.0
) -> float | Tensor:
    """Least number of weights to keep if the rest may hold at most eta of the kept ones' p-mass.

        r = d (1 + eta)^(-q/(q-p)) (1 - I)^(pq/(q-p))

    In [0, d], not rounded; smaller = more can go. Necessary, not sufficient: keeping r weights may lose more.
    Numbers, or tensors (then float64). ValueError: not 0 < p < q, eta < 0, an index outside [0, 1], count < 0.
    Source: Diao et al., theorem 2.
    """
    check_pair(p, q)
    check_not_negative(eta=eta)
    d, i = (exact(v) if isinstance(v, Tensor) else float(v) for v in (count, index))
    if not _all(i >= 0) or not _all(i <= 1):
        raise ValueError(f"index must be in [0, 1], got {index}")
    if not _all(d >= 0):
        raise ValueError(f"count must be >= 0, got {count}")
    return d * math.exp(-q / (q - p) * math.log1p(eta)) * (1 - i) ** (p * q / (q - p))


def _all(condition: bool | Tensor) -> bool:
    return bool(condition.all()) if isinstance(condition, Tensor) else condition


def prune_count(
    count: int, r: float, gamma: float = 1.0, beta: float = 0.9, *, rounding: Literal["paper", "reference"] = "paper"
) -> int:
    """How many of `count` weights to remove, given the bound r.

        c = floor(min(gamma (d - r), beta d)),     in [0, d]

    where a value within 1e-9 max(1, d) of an integer is that integer, so that rounding errors do not cost a
    weight. `rounding="reference"` has ceil(r) for r, as the authors' code; the same for gamma = 1, nearly always.
    ValueError: negative count, r or gamma, NaN, beta outside [0, 1].
    Source: Diao et al., algorithm 1.
    """
    if count < 0 or not (r >= 0 and math.isfinite(r)):
        raise ValueError(f"count and a finite r must be >= 0, got {count} and {r}")
    if not (gamma >= 0 and math.isfinite(gamma)) or not 0 <= beta <= 1:
        raise ValueError(f"gamma must be a finite number >= 0 and beta in [0, 1], got {gamma} and {beta}")
    if rounding not in ("paper", "reference"):
        raise ValueError(f"unknown rounding {rounding!r}, expected one of 'paper', 'reference'")
    kept = r if rounding == "paper" else -snapped_floor(-r, count)
    return min(max(snapped_floor(min(gamma * (count - kept), beta * count), count), 0), count)


def snapped_floor(value: float, count: int) -> int:
    """floor(value), or the integer within 1e-9 max(1, count) of it: 0.2 of 35 is 7, and 44 - 41 is 3."""
    near = round(value)
    return near if abs(value - near) <= _SNAP * max(1, count) else math.floor(value)
