"""Gini index and what may go at eta, slowly: all pairs, and sorted float64 sums, straight from the definitions."""

from __future__ import annotations

import numpy as np


def gini(x: np.ndarray) -> float:
    """Mean absolute difference of the magnitudes over twice their mean, by all pairs; 0 if all are 0."""
    x = np.abs(x.astype(np.float64)).ravel()
    if x.max() == 0:
        return 0.0
    x = x / x.max()
    return float(np.abs(x[:, None] - x[None, :]).sum() / (2 * len(x) * x.sum()))


def gini_by_ranks(x: np.ndarray) -> float:
    """The same of many weights: sum (2 i - d - 1) x_(i) / (d sum x)."""
    x = np.sort(np.abs(x.astype(np.longdouble)).ravel())
    return float(np.dot(2 * np.arange(1, len(x) + 1) - (len(x) + 1), x) / (len(x) * x.sum()))


def droppable(x: np.ndarray, p: float, eta: float, slack: float = 1e-9) -> tuple[int, int]:
    """Least and most of the smallest weights that hold at most eta of the others' p-mass, up to rounding."""
    x = np.sort(np.abs(x.astype(np.float64)).ravel())
    x = x / (x.max() or 1.0)
    sums = np.concatenate([[0.0], np.cumsum(x**p)])
    goal = eta * (sums[-1] - sums)
    return int((sums <= goal - slack * sums[-1]).sum()) - 1, int((sums <= goal + slack * sums[-1]).sum()) - 1
