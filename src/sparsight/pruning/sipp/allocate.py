"""SiPP's three ways to spend a budget: the most sensitive weights, a weighted sample, or the better for each group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparsight.numerics.checks import check_fraction, check_known, check_seed, check_whole
from sparsight.numerics.select import keep_largest
from sparsight.pruning.allocate.counts import alive, share
from sparsight.pruning.allocate.in_groups import rows_of
from sparsight.pruning.sipp.bounds import Bound, check_bound, check_constant, check_delta
from sparsight.pruning.sipp.decision import Decision, decide, share_again
from sparsight.pruning.sipp.groups import Rounding
from sparsight.pruning.sipp.ranking import keep_ranked
from sparsight.pruning.sipp.sensitivities import by_rows, ranking_keys
from sparsight.types import Allocation, Allocator, GroupRecord, Masks, Params, Scored, Scores

_REFILLS = 1000  # times that a budget is spent anew, at most

Chosen = tuple[Masks, dict[str, Tensor] | None]
"""Masks, and multipliers where something was sampled."""


@dataclass(frozen=True)
class SiPPDet(Allocator):
    """Keep the given share, or number, of all prunable weights: those with the largest scores, whole as they are.

    `density` in [0, 1] of all prunable weights (pruned ones included), rounded half up; `count`, if given, comes
    instead. A density above the present one keeps all that is alive. For SiPP's sensitivities this minimises the sum of
    the groups' bounds C x (sensitivities left out). Exactly so many are alive afterwards. Ties, of which saturated
    sensitivities make many, are settled by the mean sensitivity, then by |w|, then the lower index goes (scores that
    are not SiPP's have the index alone). Every tensor keeps at least `min_keep` weights (or what it has). With
    `recover` pruned weights compete too and may return.

    Scores of `SiPP(propagate=True)` take away, too, what no gradient reaches, so that fewer are alive. With `refill`
    what is found dead is set aside and the budget spent anew, until all that is kept is alive (or no more is there to
    keep, or it has been spent 1000 times): exactly so many are alive, and none of them is cut off.

    Errors: density outside [0, 1]; fewer weights alive than `count`; a floor without room; NaN scores; `refill` with
    scores that cannot tell what is dead.
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
        _, floors = keep_largest(scores, masks, keep, min_keep=self.min_keep)  # refuses, too, what cannot be ranked

        def choose(masks: Masks, keep: int, before: Params | None) -> Chosen:
            return keep_ranked(ranking_keys(scores), masks, keep, min_keep=self.min_keep), None

        kept, multipliers = _reached(scores, masks, keep, choose, self.refill)
        left = sum(int(mask.sum()) for mask in kept.values())
        record = GroupRecord("global", d, d - left, floor_bound=bool(floors))
        return Allocation(kept, (record,), multipliers, floors)


@dataclass(frozen=True)
class _Sampler(Allocator):
    """A share of the budget for every group, and a sample of it in some of them."""

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
        check_bound(self.bound)
        check_seed(self.seed)
        check_known(("largest", "ceil"), rounding=self.rounding)
        if self.refill and not self.exact:
            raise ValueError("refill gives every group its exact count: with exact=False leave it out, got both")

    @property
    def monotone(self) -> bool:
        return not self.recover

    def decide(self, scores: Scores, masks: Masks) -> Decision:
        """What is done with every group, and why."""
        masks, keep, _ = _budget(self, masks)
        return self._decide(scores, masks, keep)

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        before, keep, _ = _budget(self, masks)

        def choose(masks: Masks, keep: int, before: Params | None) -> Chosen:
            if before is None:
                decision = self._decide(scores, masks, keep)
                return decision.masks, decision.multipliers if decision.random.any() else None
            rows = rows_of(scores, masks)
            own = self._named("delta", "constant", "bound", "rounding")
            factors = rows.back(share_again(by_rows(scores, rows), rows.of(masks), keep, rows.of(before), **own))
            sampled = any(bool(((gamma != 0) & (gamma != 1)).any()) for gamma in factors.values())
            return {name: gamma > 0 for name, gamma in factors.items()}, factors if sampled else None

        kept, multipliers = _reached(scores, before, keep, choose, self.refill)
        records = []
        for name, mask in before.items():
            d = int(mask.sum())
            records.append(GroupRecord(name, d, d - int(kept[name].sum())))
        return Allocation(kept, tuple(records), multipliers)

    def _decide(self, scores: Scores, masks: Masks, keep: int) -> Decision:
        own = self._named("delta", "constant", "bound", "rounding", "exact", "seed")
        rows = rows_of(scores, masks)
        decision = decide(by_rows(scores, rows), rows.of(masks), keep, hybrid=self.hybrid, **own)
        return replace(decision, masks=rows.back(decision.masks), multipliers=rows.back(decision.multipliers))

    def _named(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class SiPPRand(_Sampler):
    """Keep a sample of each group, drawn with replacement in proportion to sensitivity, and reweighted.

    A group is the positive or the negative weights of a neuron. The budget (as in `SiPPDet`) is shared out by
    minimising sum eps_rand(m) / rows in closed form, and made whole by largest remainders ("ceil" rounds all up, as
    the published code does). A group that may keep all its nonzero sensitivities is kept as it is; of any other
    N edges are drawn, N the least with ceil(E[distinct]) = m, and kept weights are multiplied by
    gamma = c / (N q), so that E[gamma w] = w. `plan(...).multipliers` are these factors, applied by the restart.

    A sample has m distinct edges in expectation only, less than one fewer. With `exact` each group keeps exactly m: of
    too many the least sensitive go, of too few the most sensitive that were left out join, unweighted, so that
    E[gamma w] = w holds nearly. `exact=False` leaves samples as drawn, as the published code does; `c` in the records
    is what was removed. With `refill` (see `SiPPDet`) the budget is shared out over the groups of what is not dead, and
    each group brought to its count in the same way; nothing is drawn again. Where the budget covers every nonzero
    sensitivity nothing is drawn: as `SiPPDet`, exact.

    The same `seed`, scores and masks give the same sample, and a sample of that sample draws other numbers. Of scores
    that are not SiPP's each row is one group, P = kappa = 1.
    Errors: as `SiPPDet`; a negative score. Source: the published SiPPRand; deviations on docs/methods/sipp.md.
    """

    hybrid = False


@dataclass(frozen=True)
class SiPPHybrid(_Sampler):
    """As `SiPPRand`, but a group is sampled only if eps_det > eps_rand; else its m most sensitive weights are kept.

    The budget is shared out as for `SiPPRand`. Groups that are not sampled keep exactly m weights, unchanged; ties as
    in `SiPPDet`. Source: the published SiPPHybrid, without what made its allocations corrupt themselves.
    """

    hybrid = True


# -- budgets ---------------------------------------------------------------------------------------------------


def _check(allocator: Any) -> None:
    check_fraction(density=allocator.density)
    if allocator.count is not None:
        check_whole(0, count=allocator.count)


def _budget(allocator: Any, masks: Masks) -> tuple[Masks, int, int]:
    """(the masks to choose from, how many to keep, how many are alive).

    A share of what there was may be more than is left, where earlier samples fell short: then all of it stays.
    """
    if allocator.recover:
        masks = {name: torch.ones_like(mask) for name, mask in masks.items()}
    d, total = alive(masks, "global")["global"], sum(mask.numel() for mask in masks.values())
    if allocator.count is None:
        return masks, min(d, share(allocator.density, total)), d
    keep = allocator.count
    if keep > d:
        raise ValueError(f"cannot keep {keep} of {d} alive weights ({total} prunable)")
    return masks, keep, d


def _reached(
    scores: Scores, masks: Masks, keep: int, choose: Callable[[Masks, int, Params | None], Chosen], refill: bool
) -> Chosen:
    """What `choose` keeps, without the parameters that no gradient reaches, where the scores can tell.

    Biases and norms that none reaches become 0 too. With `refill` all that was ever found dead is no longer chosen.
    """
    silent = scores.silent if isinstance(scores, Scored) else None
    if silent is None and refill:
        raise ValueError("refill needs scores that tell what no gradient reaches: use SiPP(propagate=True)")
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
