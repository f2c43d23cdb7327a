"""Allocators with a fixed budget or a fixed rate, and levels of many rounds, each scored by SNIP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from sparsight.measure.pq.bound import snapped_floor
from sparsight.numerics.checks import check_fraction, check_known, check_whole
from sparsight.numerics.select import check_scores
from sparsight.pruning.allocate.counts import alive, check_target, share
from sparsight.pruning.allocate.exact import prune_exactly, toward
from sparsight.pruning.allocate.in_groups import in_groups
from sparsight.pruning.schedules import Geometric
from sparsight.pruning.schedules import rounds as at_rounds
from sparsight.types import Allocation, Allocator, GroupRecord, Masks, Scope, Scores


@dataclass(frozen=True)
class Global(Allocator):
    """Keep the weights with the highest scores over all tensors.

    Keeps exactly `density` in [0, 1] of all prunable weights (including pruned ones), rounded half up, or `count` of
    them. Every tensor keeps at least `min_keep` weights, if it has them; the total stays exact. With `recover=True`
    pruned weights compete too and may return (FORCE).

    Raises: ValueError for both or neither of density and count, a density outside [0, 1], too few alive weights, or a
    floor that is too high.
    """

    density: float | None = None
    count: int | None = None
    min_keep: int = 1
    recover: bool = False

    def __post_init__(self) -> None:
        if (self.density is None) == (self.count is None):
            raise ValueError(f"Global needs either density or count, got {self.density!r} and {self.count!r}")
        if self.density is not None:
            check_fraction(density=self.density)
        if self.count is not None:
            check_whole(0, count=self.count)
        check_whole(0, min_keep=self.min_keep)

    @property
    def monotone(self) -> bool:
        return not self.recover

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        check_scores(scores, masks)
        if self.recover:
            masks = {name: torch.ones_like(mask) for name, mask in masks.items()}
        d = alive(masks, "global")["global"]
        total = sum(mask.numel() for mask in masks.values())
        keep = self.count if self.count is not None else share(self.density or 0.0, total)
        if keep > d:
            raise ValueError(f"cannot keep {keep:,} of {d:,} alive weights ({total:,} prunable)")
        return prune_exactly(scores, masks, {"global": GroupRecord("global", d, d - keep)}, "global", self.min_keep)


@dataclass(frozen=True)
class Uniform(Allocator):
    """Keep the same share of every tensor, or of every output unit.

    Each group keeps density x its prunable weights, rounded half up. A group that would fall below `min_keep` keeps
    that many; the groups that keep most lose as many in exchange.

    Raises: ValueError for a density outside [0, 1], a group with too few alive weights, or a floor that is too high.
    """

    density: float
    scope: Literal["layer", "neuron"] = "layer"
    min_keep: int = 1

    def __post_init__(self) -> None:
        check_fraction(density=self.density)
        check_known(("layer", "neuron"), scope=self.scope)
        check_whole(0, min_keep=self.min_keep)

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        return in_groups(self._plan, scores, masks, self.scope)

    def _plan(self, scores: Scores, masks: Masks) -> Allocation:
        sizes = alive({name: torch.ones_like(mask) for name, mask in masks.items()}, self.scope)
        groups = {}
        for name, d in alive(masks, self.scope).items():
            keep = share(self.density, sizes[name])
            if keep > d:
                raise ValueError(f"cannot keep {keep:,} of {d:,} alive weights in {name!r} ({sizes[name]:,} prunable)")
            groups[name] = GroupRecord(name, d, d - keep)
        return prune_exactly(scores, masks, groups, self.scope, self.min_keep)


@dataclass(frozen=True)
class Shrink(Allocator):
    """Remove floor(rate x alive) of every group, smallest scores first; after t rounds about (1 - rate)^t is left.

    A product within 1e-9 x max(1, alive) of a whole number counts as that number, as in SAP: 0.2 of 35 is 7.
    `target_density`, `exact` and `min_keep` are as in `SAP`.

    Source: the reference implementation's lottery-ticket baseline. Its interpolated quantile removes
    ceil(rate x (alive - 1)) weights if all differ, and fewer among ties.
    """

    rate: float = 0.2
    scope: Scope = "global"
    min_keep: int = 1
    target_density: float | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        check_fraction(rate=self.rate)
        check_known(Scope, scope=self.scope)
        check_whole(0, min_keep=self.min_keep)
        check_target(self.target_density, self.exact)

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        return in_groups(self._plan, scores, masks, self.scope)

    def _plan(self, scores: Scores, masks: Masks) -> Allocation:
        groups = {
            name: GroupRecord(name, d, snapped_floor(self.rate * d, d)) for name, d in alive(masks, self.scope).items()
        }
        groups = toward(groups, masks, self.scope, self.min_keep, self.target_density, self.exact)
        return prune_exactly(scores, masks, groups, self.scope, self.min_keep)


# -- Iterative SNIP and FORCE: rounds of Global ------------------------------------------------------------------

Schedule = Callable[[float], Callable[[float], float]]


def IterativeSNIP(
    density: float, rounds: int = 60, *, schedule: Schedule = Geometric, min_keep: int = 1
) -> tuple[Global, ...]:
    """A level that prunes to `density` in `rounds` rounds; pruned weights never return.

    Round t of n keeps schedule(density)(t / n) of the prunable weights, rounded half up: density^(t/n) by default.
    Use it as `Recipe(score=SNIP(), levels=(Level(IterativeSNIP(0.05)),), ...)`; one round is SNIP.

    Raises: ValueError for a density that the schedule refuses, or fewer than one round.

    Source: de Jorge et al., "Progressive Skeletonization", ICLR 2021, algorithm 1 without recovery.
    """
    return tuple(Global(density=at, min_keep=min_keep) for at in at_rounds(schedule(density), rounds))


def FORCE(density: float, rounds: int = 60, *, schedule: Schedule = Geometric, min_keep: int = 1) -> tuple[Global, ...]:
    """Like `IterativeSNIP`, but pruned weights compete in every round and may return.

    SNIP scores a pruned weight by its value before pruning times the gradient of the masked network.

    Source: de Jorge et al., "Progressive Skeletonization", ICLR 2021, algorithm 1.
    """
    return tuple(Global(density=at, min_keep=min_keep, recover=True) for at in at_rounds(schedule(density), rounds))
