"""SiPP's three ways to spend a budget: the most sensitive weights, a weighted sample, or the better for each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparsight.allocate.counting import alive, check_count, check_fraction, share
from sparsight.allocate.decision import Decision, decide, ranking_keys
from sparsight.allocate.groups import Rounding
from sparsight.allocate.ranking import keep_ranked
from sparsight.bounds import Bound, check_bound, check_constant, check_delta
from sparsight.select import keep_largest
from sparsight.sensitivity import Sensitivities
from sparsight.types import Allocation, GroupRecord, Masks, Scores


@dataclass(frozen=True)
class SiPPDet:
    """Keep the given share, or number, of all prunable weights: those with the largest scores, whole as they are.

    `density` in [0, 1] of all prunable weights (pruned ones included), rounded half up; `count`, if given, comes
    instead. A density above the present one keeps all that is alive. For SiPP's sensitivities this minimises the sum of
    the groups' bounds C x (sensitivities left out). Exactly so many are alive afterwards. Ties, of which saturated
    sensitivities make many, are settled by the mean sensitivity, then by |w|, then the lower index goes (scores that
    are not SiPP's have the index alone). Every tensor keeps at least `min_keep` weights (or what it has). With
    `recover` pruned weights compete too and may return.

    Errors: density outside [0, 1]; fewer weights alive than `count`; a floor without room; NaN scores.
    Source: the published SiPPDet, section 1.8 of the derivation; there weights of sensitivity 0 could win ties.
    """

    density: float = 0.1
    count: int | None = None
    min_keep: int = 1
    recover: bool = False

    def __post_init__(self) -> None:
        _check(self)
        check_count("min_keep", self.min_keep)

    @property
    def monotone(self) -> bool:
        return not self.recover

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        masks, keep, d = _budget(self, masks)
        _, floors = keep_largest(scores, masks, keep, min_keep=self.min_keep)  # refuses, too, what cannot be ranked
        kept = keep_ranked(ranking_keys(scores), masks, keep, min_keep=self.min_keep)
        kept, multipliers = _reached(scores, kept, None)
        left = sum(int(mask.sum()) for mask in kept.values())
        record = GroupRecord("global", d, d - left, floor_bound=bool(floors))
        return Allocation(kept, (record,), multipliers, floors)

    def __call__(self, scores: Scores, masks: Masks) -> Masks:
        return self.plan(scores, masks).masks


@dataclass(frozen=True)
class _Sampler:
    """A share of the budget for every group, and a sample of it in some of them."""

    density: float = 0.1
    count: int | None = None
    delta: float = 1e-16
    constant: float = 3.0
    bound: Bound = "reference"
    rounding: Rounding = "largest"
    exact: bool = True
    recover: bool = False
    seed: int = 0

    hybrid: ClassVar[bool]

    def __post_init__(self) -> None:
        _check(self)
        check_delta(self.delta)
        check_constant(self.constant)
        check_bound(self.bound)
        check_count("seed", self.seed)
        if self.rounding not in ("largest", "ceil"):
            raise ValueError(f"unknown rounding {self.rounding!r}: allowed are 'largest' and 'ceil'")

    @property
    def monotone(self) -> bool:
        return not self.recover

    def decide(self, scores: Scores, masks: Masks) -> Decision:
        """What is done with every group, and why."""
        masks, keep, _ = _budget(self, masks)
        return self._decide(scores, masks, keep)

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        before, keep, _ = _budget(self, masks)
        decision = self._decide(scores, before, keep)
        kept, multipliers = _reached(scores, decision.masks, decision.multipliers if decision.random.any() else None)
        records = []
        for name, mask in before.items():
            d = int(mask.sum())
            records.append(GroupRecord(name, d, d - int(kept[name].sum())))
        return Allocation(kept, tuple(records), multipliers)

    def __call__(self, scores: Scores, masks: Masks) -> Masks:
        return self.plan(scores, masks).masks

    def _decide(self, scores: Scores, masks: Masks, keep: int) -> Decision:
        names = ("delta", "constant", "bound", "rounding", "exact", "seed")
        return decide(scores, masks, keep, hybrid=self.hybrid, **{name: getattr(self, name) for name in names})


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
    is what was removed. Where the budget covers every nonzero sensitivity nothing is drawn: as `SiPPDet`, exact.

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
    check_fraction("density", allocator.density)
    if allocator.count is not None:
        check_count("count", allocator.count)


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
        raise ValueError(f"cannot keep {keep} of {d} alive weights ({total} prunable): allowed is at most {d}")
    return masks, keep, d


def _reached(
    scores: Scores, masks: Masks, multipliers: dict[str, Tensor] | None
) -> tuple[Masks, dict[str, Tensor] | None]:
    """Without the parameters that no gradient reaches, where the scores can tell: biases and norms become 0 too."""
    if not isinstance(scores, Sensitivities) or scores.silent is None:
        return masks, multipliers
    found = scores.silent(masks, multipliers)
    others = {name: (~quiet).float() for name, quiet in found.items() if name not in masks and bool(quiet.any())}
    masks = {name: mask & ~found[name] if name in found else mask for name, mask in masks.items()}
    if multipliers is not None:
        multipliers = {name: torch.where(masks[name], gamma, 0) for name, gamma in multipliers.items()}
    return masks, {**(multipliers or {}), **others} or None
