"""Lottery-ticket pruning: a fixed rate of the alive weights."""

from __future__ import annotations

from dataclasses import dataclass

from sparsight.measure.pq.bound import snapped_floor
from sparsight.numerics.checks import check_fraction, check_known, check_whole
from sparsight.pruning.allocate.counts import alive, check_target
from sparsight.pruning.allocate.exact import prune_exactly, toward
from sparsight.pruning.allocate.in_groups import in_groups
from sparsight.types import Allocation, Allocator, GroupRecord, Masks, Scope, Scores


@dataclass(frozen=True)
class Shrink(Allocator):
    """Remove floor(rate x alive) of every group, smallest scores first; after t rounds about (1 - rate)^t is left.

    A product within 1e-9 x max(1, alive) of a whole number counts as that number, as in SAP: 0.2 of 35 is 7.
    `target_density`, `exact` and `min_keep` are as in `SAP`.

    Source: the reference implementation's lottery-ticket baseline, whose interpolated quantile removes
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
