"""The largest sparsity within a margin of dense, at a confidence level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Sparsest:
    """The result of `sparsest_within`, as densities."""

    density: float | None  # of the sparsest network within the margin; None: there is none
    refused: float | None  # the next one, with a bound below the margin or unknown; None: nothing sparser
    beyond: tuple[float, ...]  # sparser ones that would pass alone


def sparsest_within(bounds: Mapping[float, float | None], margin: float) -> Sparsest:
    """The sparsest network with a lower bound of (its value - dense) of at least -margin, walking from dense to sparse.

    `bounds` are one-sided lower bounds at confidence c by density, over seeds (`lower_bound`) or of shares on the same
    samples (`paired_shares`, at 2c - 1). The walk ends at the first network that fails or has no bound. A network worse
    than the margin is therefore accepted with probability at most 1 - c, however many are tried: to accept any of them
    the walk must pass the first one. Sparser ones that pass alone are reported in `beyond`.
    Raises: ValueError for a negative or NaN margin.
    Source: testing in a fixed sequence, Maurer, Hothorn and Lehmacher (1995).
    """
    if not margin >= 0:
        raise ValueError(f"the margin must be at least 0, got {margin}")
    order = sorted(bounds, reverse=True)
    passes = [(bound := bounds[x]) is not None and not math.isnan(bound) and bound >= -margin for x in order]
    end = passes.index(False) if False in passes else len(order)
    return Sparsest(
        density=order[end - 1] if end else None,
        refused=order[end] if end < len(order) else None,
        beyond=tuple(x for x, fine in zip(order[end:], passes[end:], strict=True) if fine),
    )
