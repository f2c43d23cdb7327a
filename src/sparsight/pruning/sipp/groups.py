"""SiPP's groups, the positive and negative weights of every neuron: sharing out a budget, and exact selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sparsight.numerics.exact import at_home, exact
from sparsight.numerics.select import keep_largest
from sparsight.pruning.sipp.bounds import NOTHING, Bound, alpha, draws_for, log_term, root, slope
from sparsight.types import Masks, Scored, Scores

Rounding = Literal["largest", "ceil"]


@dataclass(frozen=True, eq=False)
class Groups:
    """All groups of a network: layer by layer, first the plus groups of its rows, then the minus groups."""

    sums: np.ndarray  # S, float64
    nonzero: np.ndarray  # nonzero sensitivities; 0 if S counts as zero
    alpha: np.ndarray  # 2 C L S
    share: np.ndarray  # l = 1 / rows of the layer
    rows: dict[str, slice] = field(default_factory=dict)  # positions of each tensor's groups

    def split(self, name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The plus and the minus half of a tensor's groups."""
        plus, minus = np.split(values[self.rows[name]], 2)
        return plus, minus


def sides(scores: Scored, masks: Masks, name: str) -> tuple[Tensor, Tensor]:
    """The masks of a tensor's alive positive and negative weights; without facts all count as positive."""
    facts = scores.facts.get(name)
    positive = torch.ones_like(masks[name]) if facts is None else facts.positive
    return masks[name] & positive, masks[name] & ~positive


def groups_of(scores: Scored, masks: Masks, *, delta: float, constant: float) -> Groups:
    """The sums, counts and alphas of every group, in float64.

    For scores of other scorers, P and kappa are 1, and a row is one group. Raises: ValueError for a negative score.
    """
    sums, nonzero, logs, share, rows, at = [], [], [], [], {}, 0
    for name, score in scores.items():
        if not len(masks[name].shape) or bool((score[masks[name]] < 0).any()):
            raise ValueError(f"sensitivities must be at least 0 and have rows: {name!r} does not")
        facts = scores.facts.get(name)
        for side in sides(scores, masks, name):
            own = torch.where(side, score, 0).reshape(len(side), -1)
            sums.append(at_home(own).sum(1, dtype=torch.float64).cpu().numpy())
            nonzero.append((own > 0).sum(1).cpu().numpy())
        outputs = len(score)
        log = log_term(facts.patches if facts else 1, facts.kernel if facts else 1, delta)
        logs.append(np.full(2 * outputs, float(log)))
        share.append(np.full(2 * outputs, 1 / max(1, outputs)))
        rows[name] = slice(at, at := at + 2 * outputs)
    total, count = np.concatenate(sums), np.concatenate(nonzero)
    alphas = alpha(total, np.concatenate(logs), constant)
    return Groups(total, np.where(total > NOTHING, count, 0), alphas, np.concatenate(share), rows)


def share_out(groups: Groups, budget: int, bound: Bound = "reference") -> tuple[np.ndarray, float]:
    """The m of every group, not rounded, that minimise sum l eps_rand(m) under sum m = budget, 0 <= m <= nonzero.

    For the multiplier lambda, eps^3 = t (3 + eps) with t = lambda alpha / (3 l), and m follows from eps. The sum falls
    with lambda, which is found by bisection of its logarithm. The ends are the lambda at which every group is full and
    the one at which none exceeds its even share. Returns (m, lambda); lambda is 0 if everything fits.

    Raises: ValueError if the budget is negative or too large.
    """
    full, weight = groups.nonzero.astype(np.float64), groups.share
    if not 0 <= budget <= full.sum():
        raise ValueError(f"budget must be from 0 to {int(full.sum()):,}, the nonzero sensitivities, got {budget:,}")
    if budget == full.sum():
        return full, 0.0
    if budget == 0:
        return np.zeros_like(full), np.inf
    some = full > 0
    a, top, of = groups.alpha[some], full[some], weight[some]
    if bound == "bernstein":  # twice the reference bound at half the alpha
        a, of = a / 2, of * 2

    def lam_at(m: np.ndarray | float) -> np.ndarray:
        u = a / (3 * m)
        return of * slope(a, (u + np.sqrt(u * u + 6 * u)) / 2)

    def m_at(log: float) -> np.ndarray:
        return np.minimum(top, draws_for(a, root(np.exp(log) * a / (3 * of))))

    low, high = float(np.log(lam_at(top).min())) - 1e-9, float(np.log(lam_at(budget / len(a)).max())) + 1e-9
    while low < (middle := (low + high) / 2) < high and high - low > 1e-14:
        low, high = (middle, high) if m_at(middle).sum() > budget else (low, middle)
    m = np.zeros_like(full)
    m[some] = m_at(middle)
    return m, float(np.exp(middle))


def whole(m: np.ndarray, nonzero: np.ndarray, budget: int, rounding: Rounding = "largest") -> np.ndarray:
    """m as whole numbers: the largest remainders are rounded up until the sum is the budget, first group first.

    "ceil" rounds all up, like the published code, and exceeds the budget.
    """
    near = np.rint(m)
    m = np.where(np.abs(m - near) < 1e-9 * np.maximum(1.0, m), near, m)
    if rounding == "ceil":
        return np.minimum(np.ceil(m).astype(np.int64), nonzero)
    down = np.floor(m).astype(np.int64)
    missing = budget - int(down.sum())
    order = np.argsort(-(m - down), kind="stable")
    if missing < 0:  # inexact search: take one back from the smallest remainders
        order = order[::-1][down[order[::-1]] > 0]
        down[order[:-missing]] -= 1
        return down
    while missing > 0:
        room = order[down[order] < nonzero[order]]
        down[room[:missing]] += 1
        missing -= min(missing, len(room))
    return down


# -- selection: ties in the sensitivity are ranked by its mean, then by |w| ------------------------------------------


def ranking_keys(scores: Scores) -> Sequence[Scores]:
    """The keys of the ranking: sensitivity, mean sensitivity, |w|; only the scores for another scorer."""
    facts = scores.facts if isinstance(scores, Scored) else {}
    if not facts:
        return (scores,)
    return scores, {name: known.mean for name, known in facts.items()}, {n: known.size for n, known in facts.items()}


def keep_ranked(scores: Scores, masks: Masks, count: int, *, min_keep: int = 0) -> dict[str, Tensor]:
    """Keep the `count` alive weights that come first by `ranking_keys`, over all tensors: higher first, key by key.

    Weights that are equal in every key are ordered as in `keep_largest`: the lower index is pruned first. The first
    `min_keep` weights of every tensor are always kept. Raises: as `keep_largest`.
    """
    keys = ranking_keys(scores)
    if min_keep == 0:
        return _by_keys(keys, masks, count)
    aside = {}
    for name, mask in masks.items():
        alone, own = [{name: key[name]} for key in keys], {name: mask}
        aside |= _by_keys(alone, own, min(min_keep, int(mask.sum())))
    rest = count - sum(int(mask.sum()) for mask in aside.values())
    if rest < 0:
        keep_largest(scores, masks, count, min_keep=min_keep)  # raises
    others = _by_keys(keys, {name: masks[name] & ~aside[name] for name in masks}, rest)
    return {name: aside[name] | others[name] for name in masks}


def _by_keys(keys: Sequence[Scores], masks: Masks, count: int) -> dict[str, Tensor]:
    first, *rest = keys
    kept, _ = keep_largest(first, masks, count)
    least = [exact(first[name][mask].min()) for name, mask in kept.items() if bool(mask.any())]
    if not rest or not least:
        return kept
    edge = float(torch.stack([value.cpu() for value in least]).min())
    tied = {name: masks[name] & (first[name] == edge) for name in masks}
    if all(bool((kept[name] | ~tied[name]).all()) for name in masks):
        return kept
    sure = {name: kept[name] & ~tied[name] for name in masks}
    missing = count - sum(int(mask.sum()) for mask in sure.values())
    chosen = _by_keys(rest, tied, missing)
    return {name: sure[name] | chosen[name] for name in masks}


def keep_ranked_rows(scores: Scores, masks: Masks, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same inside each output row: `counts` are int64 tensors with a count for each row (dimension 0)."""
    return _by_keys_in_rows(ranking_keys(scores), masks, counts)


def _by_keys_in_rows(keys: Sequence[Scores], masks: Masks, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    first, *rest = keys
    kept, _ = keep_largest(first, masks, dict(counts), scope="neuron")
    if not rest:
        return kept
    tied, sure, missing = {}, {}, {}
    for name, mask in masks.items():
        score = first[name].reshape(len(mask), -1)
        inside = kept[name].reshape(len(mask), -1)
        edge = torch.where(inside, score, torch.inf).amin(1, keepdim=True)
        tied[name] = mask & (score == edge).reshape(mask.shape)
        sure[name] = kept[name] & ~tied[name]
        missing[name] = (kept[name] & tied[name]).reshape(len(mask), -1).sum(1)
    if all(bool((kept[name] | ~tied[name]).all()) for name in masks):
        return kept
    chosen = _by_keys_in_rows(rest, tied, missing)
    return {name: sure[name] | chosen[name] for name in masks}
