"""SiPP's three allocators: the most sensitive weights, a reweighted sample, or the better of both for each group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sparsight.numerics.checks import check_fraction, check_known, check_seed, check_whole
from sparsight.numerics.seeds import derive
from sparsight.numerics.select import keep_largest
from sparsight.pruning.allocate.counts import alive, share
from sparsight.pruning.allocate.in_groups import rows_of
from sparsight.pruning.sipp.bounds import Bound, check_constant, check_delta, eps_rand
from sparsight.pruning.sipp.groups import Groups, Rounding, groups_of, keep_ranked, share_out, sides, whole
from sparsight.pruning.sipp.sampling import Decision, exact_counts, sampled, summed, top
from sparsight.pruning.sipp.sensitivities import by_rows
from sparsight.types import Allocation, Allocator, GroupRecord, Masks, Params, Scored, Scores

_REFILLS = 1000  # most repetitions with `refill`

Chosen = tuple[Masks, dict[str, Tensor] | None]
"""Masks, and multipliers if something was sampled."""


@dataclass(frozen=True)
class SiPPDet(Allocator):
    """Keep the weights with the largest scores over all tensors, unchanged.

    Keeps exactly `density` in [0, 1] of all prunable weights (including pruned ones), rounded half up, or `count` of
    them; a density above the current one keeps all alive weights. With SiPP's sensitivities this minimises the sum of
    the groups' bounds C x (removed sensitivities). Ties, which saturated sensitivities often cause, are broken by the
    mean sensitivity, then by |w|, then by index (lower index pruned first; other scores use only the index). Every
    tensor keeps at least `min_keep` weights, if it has them. With `recover` pruned weights compete too and may return.

    With `SiPP(propagate=True)`, parameters that no gradient reaches are removed as well, and fewer weights are alive.
    With `refill`, dead weights are replaced repeatedly, at most 1000 times, until all kept weights are alive.

    Raises: ValueError for a density outside [0, 1], fewer alive weights than `count`, a floor that is too high, NaN
    scores, or `refill` with scores that cannot tell dead weights.
    Source: the published SiPPDet, section 1.8 of the derivation; there weights of sensitivity 0 could win ties.
    """

    density: float = 0.1
    count: int | None = None
    min_keep: int = 1
    recover: bool = False
    refill: bool = False

    def __post_init__(self) -> None:
        _check(self)
        check_whole(0, min_keep=self.min_keep)

    @property
    def monotone(self) -> bool:
        return not self.recover

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        masks, keep, d = _budget(self, masks)
        _, floors = keep_largest(scores, masks, keep, min_keep=self.min_keep)  # also checks the scores

        def choose(masks: Masks, keep: int, before: Params | None) -> Chosen:
            return keep_ranked(scores, masks, keep, min_keep=self.min_keep), None

        kept, multipliers = _reached(scores, masks, keep, choose, self.refill)
        left = sum(int(mask.sum()) for mask in kept.values())
        record = GroupRecord("global", d, d - left, floor_bound=bool(floors))
        return Allocation(kept, (record,), multipliers, floors)


@dataclass(frozen=True)
class _Sampler(Allocator):
    """Divides the budget among groups, and samples some of them."""

    density: float = 0.1
    count: int | None = None
    delta: float = 1e-16
    constant: float = 3.0
    bound: Bound = "reference"
    rounding: Rounding = "largest"
    exact: bool = True
    recover: bool = False
    refill: bool = False
    seed: int = 0

    hybrid: ClassVar[bool]

    def __post_init__(self) -> None:
        _check(self)
        check_delta(self.delta)
        check_constant(self.constant)
        check_known(Bound, bound=self.bound)
        check_seed(self.seed)
        check_known(("largest", "ceil"), rounding=self.rounding)
        if self.refill and not self.exact:
            raise ValueError("refill needs exact=True")

    @property
    def monotone(self) -> bool:
        return not self.recover

    def decide(self, scores: Scores, masks: Masks) -> Decision:
        """The decision for every group, and its reasons."""
        masks, keep, _ = _budget(self, masks)
        return self._decide(scores, masks, keep)

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        before, keep, _ = _budget(self, masks)

        def choose(masks: Masks, keep: int, before: Params | None) -> Chosen:
            if before is None:
                decision = self._decide(scores, masks, keep)
                return decision.masks, decision.multipliers if decision.random.any() else None
            factors = self._again(scores, masks, keep, before)
            random = any(bool(((gamma != 0) & (gamma != 1)).any()) for gamma in factors.values())
            return {name: gamma > 0 for name, gamma in factors.items()}, factors if random else None

        kept, multipliers = _reached(scores, before, keep, choose, self.refill)
        records = []
        for name, mask in before.items():
            d = int(mask.sum())
            records.append(GroupRecord(name, d, d - int(kept[name].sum())))
        return Allocation(kept, tuple(records), multipliers)

    def _decide(self, given: Scores, masks: Masks, keep: int) -> Decision:
        """Divide `keep` weights among the groups, and decide how to choose them."""
        rows = rows_of(given, masks)
        scores, masks = by_rows(given, rows), rows.of(masks)
        keep_largest(scores, masks, 0)  # checks for NaN, shapes and names
        groups, m, counts = self._shared(scores, masks, keep)
        covered = keep >= groups.nonzero.sum()
        ranked = keep_ranked(scores, masks, keep) if covered else top(scores, masks, groups, counts)
        lost = groups.sums - summed(scores, ranked, groups, scores)
        eps_det = self.constant * np.where(counts >= groups.nonzero, 0.0, np.maximum(lost, 0.0))
        bounds = eps_rand(groups.alpha, counts, self.bound)
        random = (counts > 0) & (counts < groups.nonzero)
        if self.hybrid:
            random &= eps_det > bounds
        draws, multipliers = np.zeros_like(counts), {}
        for name, score in scores.items():
            own = sides(scores, masks, name), groups.split(name, counts), groups.split(name, random)
            place = derive(self.seed, "sipp", name, int(masks[name].sum()))  # a sample of a sample uses another seed
            gamma, draws[groups.rows[name]] = sampled(score, *own, place)
            multipliers[name] = torch.where(gamma >= 0, gamma, ranked[name].to(gamma.dtype))
        if self.exact and random.any():
            multipliers, as_drawn = exact_counts(scores, masks, groups, counts, multipliers)
            draws[~as_drawn] = 0
        multipliers = rows.back(multipliers)
        kept = {name: gamma > 0 for name, gamma in multipliers.items()}
        return Decision(groups, m, counts, eps_det, bounds, random, draws, kept, multipliers)

    def _again(self, given: Scores, masks: Masks, keep: int, before: Params) -> dict[str, Tensor]:
        """The multipliers for `keep` weights within `masks`, based on earlier ones, without drawing again.

        Divides the budget among the groups of the masked weights, which reach their counts: see `exact_counts`.
        """
        rows = rows_of(given, masks)
        scores, masks = by_rows(given, rows), rows.of(masks)
        left = {name: torch.where(masks[name], gamma, 0) for name, gamma in rows.of(before).items()}
        groups, _, counts = self._shared(scores, masks, keep)
        if keep < groups.nonzero.sum():
            return rows.back(exact_counts(scores, masks, groups, counts, left)[0])
        ranked = keep_ranked(scores, masks, keep)
        return rows.back({n: torch.where(gamma > 0, gamma, ranked[n].to(gamma.dtype)) for n, gamma in left.items()})

    def _shared(self, scores: Scored, masks: Masks, keep: int) -> tuple[Groups, np.ndarray, np.ndarray]:
        """The groups, and their shares of `keep` weights before and after rounding."""
        groups = groups_of(scores, masks, delta=self.delta, constant=self.constant)
        budget = min(keep, int(groups.nonzero.sum()))
        m = share_out(groups, budget, self.bound)[0]
        return groups, m, whole(m, groups.nonzero, budget, self.rounding)


@dataclass(frozen=True)
class SiPPRand(_Sampler):
    """Keep a reweighted sample of each group, drawn with replacement in proportion to sensitivity.

    A group is the positive or the negative weights of a neuron. The budget (as in `SiPPDet`) is divided by minimising
    sum eps_rand(m) / rows in closed form, and rounded by largest remainders ("ceil" rounds all up, like the published
    code). A group that may keep all its nonzero sensitivities does not change; from any other, N edges are drawn, with
    the least N for which ceil(E[distinct]) = m, and kept weights are multiplied by gamma = c / (N q), which makes
    E[gamma w] = w. `plan(...).multipliers` are these factors, which the restart applies.

    A sample has m distinct edges only in expectation. With `exact` each group keeps exactly m: the least sensitive
    edges are dropped, or the most sensitive others are added with a factor of 1, and E[gamma w] = w holds nearly.
    `exact=False` keeps samples as drawn, like the published code. With `refill` (see `SiPPDet`) the budget is divided
    again among live groups, which reach their counts in the same way, without drawing again. A budget that covers every
    nonzero sensitivity gives the result of `SiPPDet`.

    The same `seed`, scores and masks give the same sample. For scores of other scorers, each row is one group, with
    P = kappa = 1.
    Raises: as `SiPPDet`; ValueError for a negative score. Source: the published SiPPRand; deviations on
    docs/methods/sipp.md.
    """

    hybrid = False


@dataclass(frozen=True)
class SiPPHybrid(_Sampler):
    """Like `SiPPRand`, but samples a group only if eps_det > eps_rand; otherwise keeps its m most sensitive weights.

    The budget is divided as for `SiPPRand`; ties as in `SiPPDet`. Source: the published SiPPHybrid, without the bug
    that corrupted its allocations.
    """

    hybrid = True


# -- budgets ---------------------------------------------------------------------------------------------------


def _check(allocator: Any) -> None:
    check_fraction(density=allocator.density)
    if allocator.count is not None:
        check_whole(0, count=allocator.count)


def _budget(allocator: Any, masks: Masks) -> tuple[Masks, int, int]:
    """(the masks to choose from, weights to keep, alive weights).

    If earlier samples left fewer weights than the density allows, all of them are kept.
    """
    if allocator.recover:
        masks = {name: torch.ones_like(mask) for name, mask in masks.items()}
    d, total = alive(masks, "global")["global"], sum(mask.numel() for mask in masks.values())
    if allocator.count is None:
        return masks, min(d, share(allocator.density, total)), d
    keep = allocator.count
    if keep > d:
        raise ValueError(f"cannot keep {keep:,} of {d:,} alive weights ({total:,} prunable)")
    return masks, keep, d


def _reached(
    scores: Scores, masks: Masks, keep: int, choose: Callable[[Masks, int, Params | None], Chosen], refill: bool
) -> Chosen:
    """What `choose` keeps, without parameters that no gradient reaches, if the scores can tell.

    Biases and norms that no gradient reaches become 0 too. With `refill`, dead weights are not chosen again.
    """
    silent = scores.silent if isinstance(scores, Scored) else None
    if silent is None and refill:
        raise ValueError("refill needs the scores of SiPP(propagate=True)")
    kept, multipliers = choose(masks, keep, None)
    if silent is None:
        return kept, multipliers
    found = silent(kept, multipliers)
    for _ in range(_REFILLS if refill else 0):
        dead = {name: mask & found[name] for name, mask in kept.items() if name in found}
        if not any(bool(mask.any()) for mask in dead.values()):
            break
        masks = {name: mask & ~dead[name] if name in dead else mask for name, mask in masks.items()}
        before = multipliers or {name: mask.float() for name, mask in kept.items()}
        kept, multipliers = choose(masks, min(keep, alive(masks, "global")["global"]), before)
        found = silent(kept, multipliers)
    others = {name: (~quiet).float() for name, quiet in found.items() if name not in masks and bool(quiet.any())}
    kept = {name: mask & ~found[name] if name in found else mask for name, mask in kept.items()}
    if multipliers is not None:
        multipliers = {name: torch.where(kept[name], gamma, 0) for name, gamma in multipliers.items()}
    return kept, {**(multipliers or {}), **others} or None
