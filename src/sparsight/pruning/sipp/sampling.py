"""Sampling the edges of SiPP's groups with replacement: the number of draws, the draws, and their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsight.numerics.exact import at_home, exact
from sparsight.pruning.sipp.bounds import NOTHING
from sparsight.pruning.sipp.groups import Groups, keep_ranked_rows, sides
from sparsight.types import Masks, Scored, Scores

_SLACK = 1e-9  # rounding error of an expected number of edges


def probabilities(sensitivities: np.ndarray) -> np.ndarray:
    """q = s / S along the last axis, float64; 0 if S or q is at most 2^-23, then normalised to sum to 1."""
    s = np.asarray(sensitivities, np.float64)
    total = s.sum(-1, keepdims=True)
    q = np.divide(s, total, out=np.zeros_like(s), where=total > NOTHING)
    q = np.where(q <= NOTHING, 0.0, q)
    return np.divide(q, q.sum(-1, keepdims=True), out=q, where=q.sum(-1, keepdims=True) > 0)


def expected_distinct(log: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """E[distinct edges after N draws] = sum 1 - (1 - q)^N along the last axis, for the logarithms of 1 - q."""
    return -np.expm1(draws[..., None] * log).sum(-1)


def draws_for_distinct(q: np.ndarray, distinct: np.ndarray) -> np.ndarray:
    """The least N with ceil(E[distinct]) = m, for each row of q.

    m of 0 or 1 takes m draws; of n edges with q > 0, at most n - 1 can be expected. E grows with N, which is found by
    bisection, between m (at most one distinct edge per draw) and the first of 4 m, 16 m, ... that is enough.
    """
    m = np.asarray(distinct, np.int64)
    target = np.minimum(m, (q > 0).sum(-1) - 1)
    out = np.where(m <= 1, m, 1)
    todo = (m > 1) & (target > 1)
    log, low = np.log1p(-q[todo]), target[todo]
    goal, high = low - 1 + _SLACK, low
    while not (found := expected_distinct(log, high) > goal).all():
        low, high = np.where(found, low, high + 1), np.where(found, high, 4 * high)
    while (low < high).any():
        middle = (low + high) // 2
        found = expected_distinct(log, middle) > goal
        low, high = np.where(found, low, middle + 1), np.where(found, middle, high)
    out[todo] = high
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


# -- all groups of a network -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Decision:
    """The decision of a sampling allocator for every group, in the order of `groups`, for certificates."""

    groups: Groups
    m: np.ndarray  # share of the budget, before rounding
    counts: np.ndarray  # edges to keep; in expectation for a random group, unless counts are exact
    eps_det: np.ndarray  # C x (sensitivities beyond the `counts` largest)
    eps_rand: np.ndarray  # at `counts`; infinite if a nonzero group keeps nothing
    random: np.ndarray  # bool: sampled
    draws: np.ndarray  # N of a random group kept as drawn, otherwise 0
    masks: Masks
    multipliers: dict[str, Tensor]  # gamma: 1 if kept unchanged, 0 if not kept


def top(scores: Scored, masks: Masks, groups: Groups, counts: np.ndarray) -> dict[str, Tensor]:
    """The `counts` most sensitive weights of every group."""
    out = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    for i in (0, 1):
        half = {name: sides(scores, masks, name)[i] for name in masks}
        own = {
            name: torch.from_numpy(groups.split(name, counts)[i].astype(np.int64)).to(mask.device)
            for name, mask in masks.items()
        }
        kept = keep_ranked_rows(scores, half, own)
        out = {name: out[name] | kept[name] for name in out}
    return out


def exact_counts(
    scores: Scored, masks: Masks, groups: Groups, counts: np.ndarray, multipliers: dict[str, Tensor]
) -> tuple[dict[str, Tensor], np.ndarray]:
    """(multipliers with exactly `counts` weights in each group, the groups that already had them).

    Drops the least sensitive weights, or adds the most sensitive others with a factor of 1.
    """
    drawn = {name: gamma > 0 for name, gamma in multipliers.items()}
    have = summed({name: mask.float() for name, mask in drawn.items()}, drawn, groups, scores).astype(np.int64)
    stay = top(scores, drawn, groups, np.minimum(have, counts))
    join = top(scores, {name: masks[name] & ~drawn[name] for name in drawn}, groups, np.maximum(counts - have, 0))
    found = {name: torch.where(stay[name], gamma, join[name].to(gamma.dtype)) for name, gamma in multipliers.items()}
    return found, have == counts


def summed(values: Scores, masks: Masks, groups: Groups, scores: Scored) -> np.ndarray:
    """The sum of the masked values of each group of the scores, in float64."""
    out = np.zeros_like(groups.sums)
    for name, score in values.items():
        halves = [torch.where(side, score, 0).reshape(len(side), -1) for side in sides(scores, masks, name)]
        out[groups.rows[name]] = torch.cat([at_home(half).sum(1, dtype=torch.float64) for half in halves]).cpu().numpy()
    return out


def sampled(
    score: Tensor,
    halves: tuple[Tensor, Tensor],
    counts: tuple[np.ndarray, np.ndarray],
    random: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> tuple[Tensor, np.ndarray]:
    """(gamma of the weights in random groups, -1 for all others; the draws of each group of the tensor)."""
    gamma = np.full((len(score), math.prod(score.shape[1:])), -1.0)
    draws = [np.zeros_like(c) for c in counts]
    generator = np.random.Generator(np.random.PCG64(seed))
    for own, count, half, chosen in zip(draws, counts, halves, random, strict=True):
        rows = np.flatnonzero(chosen)
        if not len(rows):
            continue
        inside = half.reshape(len(score), -1).cpu().numpy()[rows]
        q = probabilities(np.where(inside, exact(score.reshape(len(score), -1)).cpu().numpy()[rows], 0.0))
        own[rows] = draws_for_distinct(q, count[rows])
        factor = reweighting(draw(q, own[rows], generator), own[rows], q)
        gamma[rows] = np.where(inside, factor, gamma[rows])
    kind = score.dtype
    return torch.from_numpy(gamma).to(kind).to(score.device).reshape(score.shape), np.concatenate(draws)
