"""Sampling the edges of a group with replacement: the number of draws, the draws, and their weights."""

from __future__ import annotations

import numpy as np

from sparsight.pruning.sipp.bounds import NOTHING

_SLACK = 1e-9  # rounding error of an expected number of edges


def probabilities(sensitivities: np.ndarray) -> np.ndarray:
    """q = s / S along the last axis, float64; 0 if S or q is at most 2^-23, then normalised to sum to 1."""
    s = np.asarray(sensitivities, np.float64)
    total = s.sum(-1, keepdims=True)
    q = np.divide(s, total, out=np.zeros_like(s), where=total > NOTHING)
    q = np.where(q <= NOTHING, 0.0, q)
    return np.divide(q, q.sum(-1, keepdims=True), out=q, where=q.sum(-1, keepdims=True) > 0)


def expected_distinct(q: np.ndarray, draws: np.ndarray | int) -> np.ndarray:
    """E[distinct edges after N draws] = sum 1 - (1 - q)^N along the last axis."""
    with np.errstate(divide="ignore"):
        return -np.expm1(np.asarray(draws, np.float64)[..., None] * np.log1p(-q)).sum(-1)


def draws_for_distinct(q: np.ndarray, distinct: np.ndarray) -> np.ndarray:
    """The least N with ceil(E[distinct]) = m, for each row of q.

    m of 0 or 1 takes m draws; of n edges with q > 0, at most n - 1 can be expected. Uses Newton's method on the
    logarithm of the missing edges, sum (1 - q)^N, a convex function of N, which never passes the root from the left.
    The whole number is then corrected for rounding.
    """
    m = np.asarray(distinct, np.int64)
    possible = (q > 0).sum(-1)
    target = np.minimum(m, possible - 1)
    out = np.where(m <= 1, m, 1)
    todo = (m > 1) & (target > 1)
    if not todo.any():
        return out
    some, goal = q[todo], target[todo] - 1.0
    left = (possible[todo] - goal)[:, None]
    with np.errstate(divide="ignore"):
        log = np.where(some > 0, np.log1p(-some), -np.inf)
    x = goal.copy()
    for _ in range(80):
        rest = np.exp(x[:, None] * log)
        remaining = rest.sum(-1)
        fall = -(np.where(rest > 0, log, 0.0) * rest).sum(-1)
        step = np.log(remaining / left[:, 0]) * remaining / fall
        x += np.maximum(step, 0.0)
        if np.all(step < 0.25):
            break
    n = np.floor(x).astype(np.int64) + 1
    least = target[todo]  # at most one distinct edge per draw
    while (back := (n > least) & (expected_distinct(some, n - 1) > goal + _SLACK)).any():
        n -= back
    while (ahead := (n < least) | (expected_distinct(some, n) <= goal + _SLACK)).any():
        n += ahead
    out[todo] = n
    return out


def draw(q: np.ndarray, draws: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The number of draws of each edge: N multinomial draws per row of q (0 for a row of zeros)."""
    if not q.size:
        return np.zeros(q.shape, np.int64)
    rows = np.arange(len(q))
    # The last category absorbs rounding errors: make it the likeliest edge, never one of probability 0.
    last, best = q.shape[1] - 1, q.argmax(1)
    swapped = q.copy()
    swapped[rows, best], swapped[:, last] = q[:, last], q[rows, best]
    counts = generator.multinomial(np.where(swapped[:, last] > 0, draws, 0), swapped)
    out = counts.copy()
    out[rows, best], out[:, last] = counts[:, last], counts[rows, best]
    return out


def reweighting(counts: np.ndarray, draws: np.ndarray | int, q: np.ndarray) -> np.ndarray:
    """gamma = c / (N q), 0 if not drawn: E[gamma] = 1, Var[gamma] = (1 - q) / (N q)."""
    expected = np.asarray(draws, np.float64)[..., None] * q
    return np.divide(counts, expected, out=np.zeros(np.shape(q)), where=expected > 0)
