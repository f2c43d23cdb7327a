"""Sparsity-informed adaptive pruning: the PQ index of a group decides how many of its weights to remove."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

from sparsight.measure.pq import PowerSums, group_sums, prune_count, retained_bound
from sparsight.measure.pq.sums import OUTSIDE, check_pair
from sparsight.numerics.checks import check_fraction, check_known, check_not_negative, check_whole
from sparsight.pruning.allocate.counts import check_target
from sparsight.pruning.allocate.exact import prune_exactly, toward
from sparsight.pruning.allocate.in_groups import in_groups
from sparsight.types import Allocation, Allocator, GroupRecord, Masks, Scope, Scores


@dataclass(frozen=True)
class SAP(Allocator):
    """Remove c = floor(min(gamma (d - r), beta d)) of the d alive weights of every group, smallest scores first.

    r = d (1 + eta)^(-q/(q-p)) (1 - I)^(pq/(q-p)), with I the PQ index of the group's alive scores, is the least
    number of weights that the PQI bound lets a group keep. Larger eta and gamma prune more, beta limits a round. A
    group is everything ("global"), a tensor ("layer") or an output row ("neuron"). A group with an undefined index
    (no alive weight, or all zero), or with equal scores, loses nothing at eta = 0.

    `target_density`: no round prunes below this share of all prunable weights (rounded half up); counts are scaled down
    in proportion. `exact`: the round reaches the target exactly, by scaling down the kept weights of every group.
    `min_keep` weights stay in every tensor (global and layer scope) or row (neuron scope); the total is unchanged if
    enough weights are above that floor, otherwise all of those are removed. `rounding="reference"` uses ceil(r), as the
    authors' code does.

    `plan(...).groups` records d, I, r and c of every group. Scores are magnitudes, or comparable sizes.

    Raises: ValueError unless 0 < p < q, eta and gamma are at least 0, and beta and target_density are in [0, 1]; for
    exact without a target; for NaN or infinity among alive scores. Warns: UserWarning unless p <= 1 <= q.
    Source: Diao et al., ICLR 2023, theorem 2 and algorithm 1.
    """

    p: float = 1.0
    q: float = 2.0
    eta: float = 0.0
    gamma: float = 1.0
    beta: float = 0.9
    scope: Scope = "global"
    min_keep: int = 1
    target_density: float | None = None
    rounding: Literal["paper", "reference"] = "paper"
    exact: bool = False

    def __post_init__(self) -> None:
        check_pair(self.p, self.q)
        if not self.p <= 1 <= self.q:
            warnings.warn(OUTSIDE, UserWarning, stacklevel=3)
        check_not_negative(eta=self.eta, gamma=self.gamma)
        check_fraction(beta=self.beta)
        check_known(Scope, scope=self.scope)
        check_whole(0, min_keep=self.min_keep)
        check_target(self.target_density, self.exact)
        check_known(("paper", "reference"), rounding=self.rounding)

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        return in_groups(self._plan, scores, masks, self.scope)

    def _plan(self, scores: Scores, masks: Masks) -> Allocation:
        groups = {
            name: self._judge(name, sums) for name, sums in group_sums(scores, masks, (self.p, self.q), self.scope)
        }
        groups = toward(groups, masks, self.scope, self.min_keep, self.target_density, self.exact)
        return prune_exactly(scores, masks, groups, self.scope, self.min_keep)

    def _judge(self, name: str, sums: PowerSums) -> GroupRecord:
        index = sums.index(self.p, self.q)
        r = float(retained_bound(sums.count, index, self.p, self.q, self.eta))
        c = prune_count(sums.count, r, self.gamma, self.beta, rounding=self.rounding) if sums.defined else 0
        return GroupRecord(name, sums.count, c, index, r, defined=sums.defined)
