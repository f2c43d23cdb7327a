"""N:M sparsity: n of every m neighbouring weights, a pattern that some GPUs multiply faster."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparsight.numerics.checks import check_whole
from sparsight.pruning.allocate.in_groups import in_groups
from sparsight.types import Allocation, Allocator, GroupRecord, Masks, Scores


@dataclass(frozen=True)
class NofM(Allocator):
    """Keep the `n` highest scores of every `m` neighbouring inputs of an output.

    Inputs are dimension 1, or as the layout says (in a convolution: channels, separately at each kernel position), cut
    into groups of `m` from the first on. An incomplete last group stays dense, and so do vectors. Pruned weights stay
    pruned: a group with fewer than `n` alive weights keeps all. Among equal scores the lower index is pruned first.
    `torch.sparse.to_sparse_semi_structured` accepts linear weights with 2:4 on GPUs that support it.

    Raises: ValueError unless 0 <= n <= m and m >= 1, or for a NaN score.
    Source: Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021 (2:4).
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        check_whole(0, n=self.n)
        check_whole(1, m=self.m)
        if self.n > self.m:
            raise ValueError(f"n must be at most m, got n={self.n} and m={self.m}")

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        return in_groups(self._plan, scores, masks, "neuron")

    def _plan(self, scores: Scores, masks: Masks) -> Allocation:
        new, groups = {}, []
        for name, mask in masks.items():
            new[name] = self._kept(name, scores[name], mask) if mask.dim() > 1 else mask.clone()
            before, after = int(mask.sum()), int(new[name].sum())
            groups.append(GroupRecord(name, before, before - after))
        return Allocation(new, tuple(groups))

    def _kept(self, name: str, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if bool(scores[mask].isnan().any()):
            raise ValueError(f"the scores of {name!r} must not contain NaN")
        whole = mask.shape[1] // self.m * self.m
        least = torch.finfo(torch.float64).min  # alive weights stay above pruned ones
        order = torch.where(mask, scores.double().clamp(min=least), -torch.inf).narrow(1, 0, whole).movedim(1, -1)
        order = order.unflatten(-1, (-1, self.m)) if whole else order[..., None]
        order = order.sort(dim=-1, stable=True).indices  # stable: among equals the lower is pruned first
        places = order[..., self.m - self.n :]
        chosen = torch.zeros_like(order, dtype=torch.bool).scatter_(-1, places, True).flatten(-2).movedim(-1, 1)
        kept = mask.clone()
        kept.narrow(1, 0, whole).logical_and_(chosen)
        return kept
