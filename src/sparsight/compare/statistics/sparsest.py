"""How far one can go: the largest sparsity that is within a margin of dense, at a confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Sparsest:
    """What the lower bounds allow, by density."""

    density: float | None  # of the sparsest network that is within the margin; None: none is
    refused: float | None  # the next density, whose bound is below the margin or not known; None: there is no sparser
    beyond: tuple[float, ...]  # sparser ones whose bound alone is within the margin


def sparsest_within(bounds: Mapping[float, float | None], margin: float) -> Sparsest:
    """The sparsest network whose lower bound of (its value - dense) is at least -margin, walking from dense to sparse.

    `bounds` are one-sided lower bounds at confidence c by density, of seeds (`lower_bound`) or of shares on the same
    samples (`paired_shares`, at 2c - 1). The walk ends at the first network that fails, or has no bound. So a network
    that is worse than the margin is taken with a probability of at most 1 - c, however many are tried: only the first
    such network of the walk can be taken wrongly first. Those beyond that pass alone are named, not taken.
    ValueError for a negative margin, or NaN.
    Source: testing in a fixed sequence, Maurer, Hothorn and Lehmacher (1995).
    """
    if not margin >= 0:
        raise ValueError(f"the margin must be a number of at least 0, got {margin}")
    order = sorted(bounds, reverse=True)
    passes = [(bound := bounds[x]) is not None and not math.isnan(bound) and bound >= -margin for x in order]
    end = passes.index(False) if False in passes else len(order)
    return Sparsest(
        density=order[end - 1] if end else None,
        refused=order[end] if end < len(order) else None,
        beyond=tuple(x for x, fine in zip(order[end:], passes[end:], strict=True) if fine),
    )
