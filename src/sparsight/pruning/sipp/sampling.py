"""Sampling the edges of a group with replacement: how often to draw, what is drawn, how it is reweighted."""

from __future__ import annotations

import numpy as np

from sparsight.pruning.sipp.bounds import NOTHING

_SLACK = 1e-9  # of an expected number of edges: what rounding may make of it


def probabilities(sensitivities: np.ndarray) -> np.ndarray:
    """q = s / S along the last axis, float64; 0 where S or q is up to 2^-23, and the rest then sums to 1."""
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
    """The least N with ceil(E[distinct]) = m, for each row of q: N is on a plateau, its start is taken.

    m of 0 and 1 takes m draws; more than n - 1 of n edges with q > 0 cannot be expected, so m counts as n - 1 there.
    Newton's method on the logarithm of what is still to come, sum (1 - q)^N, a convex function of N: from the left it
    never steps past the root. Then the whole number is checked, and moved where rounding made it wrong.
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
    least = target[todo]  # there are at most as many distinct edges as draws
    while (back := (n > least) & (expected_distinct(some, n - 1) > goal + _SLACK)).any():
        n -= back
    while (ahead := (n < least) | (expected_distinct(some, n) <= goal + _SLACK)).any():
        n += ahead
    out[todo] = n
    return out


def draw(q: np.ndarray, draws: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """How often each edge is drawn: for each row of q, N multinomial draws (0 for a row of zeros)."""
    if not q.size:
        return np.zeros(q.shape, np.int64)
    rows = np.arange(len(q))
    # The last category takes what rounding leaves over: let it be the likeliest edge, never one of probability 0.
    last, best = q.shape[1] - 1, q.argmax(1)
    swapped = q.copy()
    swapped[rows, best], swapped[:, last] = q[:, last], q[rows, best]
    counts = generator.multinomial(np.where(swapped[:, last] > 0, draws, 0), swapped)
    out = counts.copy()
    out[rows, best], out[:, last] = counts[:, last], counts[rows, best]
    return out


def reweighting(counts: np.ndarray, draws: np.ndarray | int, q: np.ndarray) -> np.ndarray:
    """gamma = c / (N q), 0 for what was not drawn: E[gamma] = 1, Var[gamma] = (1 - q) / (N q)."""
    expected = np.asarray(draws, np.float64)[..., None] * q
    return np.divide(counts, expected, out=np.zeros(np.shape(q)), where=expected > 0)
