"""Sparsity-informed adaptive pruning: the PQ index of a group says how many of its weights are superfluous."""

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
    number of weights that the PQI bound lets a group keep. Larger eta and gamma prune more, beta caps a round. A
    group is everything ("global"), a tensor ("layer") or an output row ("neuron"). A group whose index is
    undefined (no alive weight, or all zero) or whose scores are all equal loses nothing at eta = 0.

    With `target_density` no round goes past that share of all prunable weights (rounded half up): the groups'
    counts are scaled down in proportion. With `exact` the round goes all the way to it: if the counts leave more,
    what they leave of every group is scaled down in proportion. `min_keep` weights stay in every tensor (global and
    layer scope) or row (neuron scope), the total unchanged where there are so many above that floor, else all of those
    go. `rounding="reference"` takes ceil(r), as the authors' code does.

    `plan(...).groups` records d, I, r and c of every group. Scores are magnitudes, or anything whose size means
    as much; a NaN or infinity among the alive ones is refused by name. Errors: not 0 < p < q; eta < 0, gamma < 0,
    beta or target_density outside [0, 1]; exact without a target. UserWarning: not p <= 1 <= q.
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
