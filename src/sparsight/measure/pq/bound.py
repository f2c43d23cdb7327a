"""The PQI bound: how many of d weights to keep for their PQ index, and how many can be removed."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from sparsight.measure.pq.sums import check_pair
from sparsight.numerics.checks import check_fraction, check_known, check_not_negative
from sparsight.numerics.exact import exact

_SNAP = 1e-9


def retained_bound(
    count: float | Tensor, index: float | Tensor, p: float, q: float, eta: float = 0.0
) -> float | Tensor:
    """The least number of weights to keep if the removed ones may hold at most eta of the kept p-mass.

        r = d (1 + eta)^(-q/(q-p)) (1 - I)^(pq/(q-p))

    In [0, d], not rounded; smaller = more can be removed. Necessary, not sufficient: keeping r weights may lose more.
    Takes numbers, or tensors (then float64). Raises: ValueError unless 0 < p < q, eta and count >= 0, index in [0, 1].
    Source: Diao et al., theorem 2.
    """
    check_pair(p, q)
    check_not_negative(eta=eta)
    d, i = (exact(v) if isinstance(v, Tensor) else float(v) for v in (count, index))
    if not _all(i >= 0) or not _all(i <= 1):
        raise ValueError(f"index must be in [0, 1], got {index}")
    if not _all(d >= 0):
        raise ValueError(f"count must be at least 0, got {count}")
    return d * math.exp(-q / (q - p) * math.log1p(eta)) * (1 - i) ** (p * q / (q - p))


def _all(condition: bool | Tensor) -> bool:
    return bool(condition.all()) if isinstance(condition, Tensor) else condition


def prune_count(
    count: int, r: float, gamma: float = 1.0, beta: float = 0.9, *, rounding: Literal["paper", "reference"] = "paper"
) -> int:
    """The number of weights to remove of `count`, for the bound r.

        c = floor(min(gamma (d - r), beta d)),     in [0, d]

    Values within 1e-9 max(1, d) of an integer are rounded to it, against rounding errors. `rounding="reference"` uses
    ceil(r) for r, like the authors' code; for gamma = 1 the result is nearly always the same.
    Raises: ValueError for a negative count, r or gamma, NaN, or beta outside [0, 1].
    Source: Diao et al., algorithm 1.
    """
    check_not_negative(count=count, r=r, gamma=gamma)
    check_fraction(beta=beta)
    check_known(("paper", "reference"), rounding=rounding)
    kept = r if rounding == "paper" else -snapped_floor(-r, count)
    return min(max(snapped_floor(min(gamma * (count - kept), beta * count), count), 0), count)


def snapped_floor(value: float, count: int) -> int:
    """floor(value), or the integer within 1e-9 max(1, count) of it: 0.2 of 35 is 7, and 44 - 41 is 3."""
    near = round(value)
    return near if abs(value - near) <= _SNAP * max(1, count) else math.floor(value)
