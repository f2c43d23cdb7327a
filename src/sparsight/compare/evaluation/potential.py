"""Prune potential and excess error: how far a network can be pruned on a distribution, and the price elsewhere.

Source: Liebenwein et al., "Lost in Pruning", MLSys 2021, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MARGINS = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Percentage points of error beyond dense."""


def prune_potential(errors: Mapping[float, float], dense: float, margin: float, *, monotone: bool = False) -> float:
    """The largest sparsity with an error of at most dense error + margin, all in [0, 1]; 0 if there is none.

    `errors` are by sparsity. With `monotone`, every smaller sparsity must be within the margin too, because one of many
    noisy comparisons may succeed by luck. NaN is never within.
    """
    largest = 0.0
    for sparsity in sorted(errors):
        if errors[sparsity] <= dense + margin:
            largest = max(largest, sparsity)
        elif monotone:
            break
    return largest


def excess_error(error: float, clean: float, dense: float, dense_clean: float) -> float:
    """(error - clean error) of the pruned network minus that of the dense one: the extra cost of corruption."""
    return (error - clean) - (dense - dense_clean)


def corruption_error(errors: Mapping[str, Sequence[float]], dense: Mapping[str, Sequence[float]]) -> float:
    """The mean over corruptions of (summed error over severities / that of the dense network); 1 means no loss.

    Infinite if only the pruned network makes errors; a corruption without any error counts as 1.
    Source: the mCE of Hendrycks and Dietterich, ICLR 2019, with the dense network in place of AlexNet.
    """
    ratios = []
    for name, mine in errors.items():
        own, other = sum(mine), sum(dense[name])
        ratios.append(own / other if other else 1.0 if not own else float("inf"))
    return sum(ratios) / len(ratios)
