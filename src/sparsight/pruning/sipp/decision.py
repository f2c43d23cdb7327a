"""Decides on each of SiPP's groups: keep it, keep its most sensitive weights, sample it, or drop it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsight.numerics.exact import at_home, exact
from sparsight.numerics.seeds import derive
from sparsight.numerics.select import keep_largest
from sparsight.pruning.sipp.bounds import Bound, eps_rand
from sparsight.pruning.sipp.groups import Groups, Rounding, groups_of, share_out, sides, whole
from sparsight.pruning.sipp.ranking import keep_ranked, keep_ranked_rows
from sparsight.pruning.sipp.sampling import draw, draws_for_distinct, probabilities, reweighting
from sparsight.pruning.sipp.sensitivities import ranking_keys
from sparsight.types import Masks, Scores


@dataclass(frozen=True, eq=False)
class Decision:
    """The decision of a sampling allocator for every group, in the order of `groups`, for certificates."""

    groups: Groups
    m: np.ndarray  # share of the budget, before rounding
    counts: np.ndarray  # edges to keep; in expectation for a random group, unless counts are exact
    eps_det: np.ndarray  # C x (sensitivities beyond the `counts` largest)
    eps_rand: np.ndarray  # at `counts`; infinite if nothing is kept of a nonzero group
    random: np.ndarray  # bool: sampled
    draws: np.ndarray  # N of a random group kept as drawn, otherwise 0
    masks: Masks
    multipliers: dict[str, Tensor]  # gamma: 1 if kept unchanged, 0 if not kept


def decide(
    scores: Scores,
    masks: Masks,
    keep: int,
    *,
    hybrid: bool,
    delta: float,
    constant: float,
    bound: Bound,
    rounding: Rounding,
    exact: bool,
    seed: int,
) -> Decision:
    """Divide `keep` weights among the groups, and decide how to choose them.

    With `exact` every sampled group reaches its count: see `_exact`.
    """
    keep_largest(scores, masks, 0)  # checks for NaN, shapes and names
    groups = groups_of(scores, masks, delta=delta, constant=constant)
    full = int(groups.nonzero.sum())
    m = share_out(groups, min(keep, full), bound)[0]
    counts = whole(m, groups.nonzero, min(keep, full), rounding)
    ranked = _top(scores, masks, groups, counts) if keep < full else keep_ranked(ranking_keys(scores), masks, keep)
    lost = groups.sums - _sums(scores, ranked, groups, scores)
    eps_det = constant * np.where(counts >= groups.nonzero, 0.0, np.maximum(lost, 0.0))
    bounds = eps_rand(groups.alpha, counts, bound)
    random = (counts > 0) & (counts < groups.nonzero)
    if hybrid:
        random &= eps_det > bounds
    draws = np.zeros_like(counts)
    multipliers = {}
    for name, score in scores.items():
        own = sides(scores, masks, name), groups.split(name, counts), groups.split(name, random)
        place = derive(seed, "sipp", name, int(masks[name].sum()))  # a sample of a sample uses another seed
        gamma, draws[groups.rows[name]] = _sample(score, *own, place)
        multipliers[name] = torch.where(gamma >= 0, gamma, ranked[name].to(gamma.dtype))
    if exact and random.any():
        multipliers, as_drawn = _exact(scores, masks, groups, counts, multipliers)
        draws[~as_drawn] = 0
    kept = {name: gamma > 0 for name, gamma in multipliers.items()}
    return Decision(groups, m, counts, eps_det, bounds, random, draws, kept, multipliers)


def share_again(
    scores: Scores,
    masks: Masks,
    keep: int,
    multipliers: Mapping[str, Tensor],
    *,
    delta: float,
    constant: float,
    bound: Bound,
    rounding: Rounding,
) -> dict[str, Tensor]:
    """The multipliers for `keep` weights within `masks`, based on earlier multipliers, without drawing again.

    Divides the budget among the groups of the masked weights, which reach their counts: see `_exact`.
    """
    groups = groups_of(scores, masks, delta=delta, constant=constant)
    full = int(groups.nonzero.sum())
    left = {name: torch.where(masks[name], gamma, 0) for name, gamma in multipliers.items()}
    if keep >= full:
        ranked = keep_ranked(ranking_keys(scores), masks, keep)
        return {name: torch.where(gamma > 0, gamma, ranked[name].to(gamma.dtype)) for name, gamma in left.items()}
    counts = whole(share_out(groups, keep, bound)[0], groups.nonzero, keep, rounding)
    return _exact(scores, masks, groups, counts, left)[0]


def _top(scores: Scores, masks: Masks, groups: Groups, counts: np.ndarray) -> dict[str, Tensor]:
    """The `counts` most sensitive weights of every group."""
    out = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    for i in (0, 1):
        half = {name: sides(scores, masks, name)[i] for name in masks}
        own = {
            name: torch.from_numpy(groups.split(name, counts)[i].astype(np.int64)).to(mask.device)
            for name, mask in masks.items()
        }
        kept = keep_ranked_rows(ranking_keys(scores), half, own)
        out = {name: out[name] | kept[name] for name in out}
    return out


def _exact(
    scores: Scores, masks: Masks, groups: Groups, counts: np.ndarray, multipliers: dict[str, Tensor]
) -> tuple[dict[str, Tensor], np.ndarray]:
    """(multipliers with exactly `counts` weights in each group, the groups that already had them).

    Drops the least sensitive weights, or adds the most sensitive others with a factor of 1.
    """
    drawn = {name: gamma > 0 for name, gamma in multipliers.items()}
    have = _sums({name: mask.float() for name, mask in drawn.items()}, drawn, groups, scores).astype(np.int64)
    stay = _top(scores, drawn, groups, np.minimum(have, counts))
    join = _top(scores, {name: masks[name] & ~drawn[name] for name in drawn}, groups, np.maximum(counts - have, 0))
    found = {name: torch.where(stay[name], gamma, join[name].to(gamma.dtype)) for name, gamma in multipliers.items()}
    return found, have == counts


def _sums(values: Scores, masks: Masks, groups: Groups, scores: Scores) -> np.ndarray:
    """The sum of the masked values of each group, in float64; groups are those of the scores."""
    out = np.zeros_like(groups.sums)
    for name, score in values.items():
        halves = [torch.where(side, score, 0).reshape(len(side), -1) for side in sides(scores, masks, name)]
        out[groups.rows[name]] = torch.cat([at_home(half).sum(1, dtype=torch.float64) for half in halves]).cpu().numpy()
    return out


def _sample(
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
