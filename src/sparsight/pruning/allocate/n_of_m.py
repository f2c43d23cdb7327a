"""N:M sparsity: so many of every few neighbouring weights, as some GPUs multiply them fast."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparsight.numerics.checks import check_whole
from sparsight.pruning.allocate.in_groups import in_groups
from sparsight.types import Allocation, Allocator, GroupRecord, Masks, Scores


@dataclass(frozen=True)
class NofM(Allocator):
    """Keep the `n` highest scores of every `m` weights that are neighbours among the inputs of one output.

    Inputs are dimension 1 of a weight, or as its layout says (in a convolution: channels, each position of the kernel
    for itself), cut into groups of `m` from the first on. What is left over at the end stays, and so does a tensor of
    one dimension. Pruned weights stay pruned: a group with fewer than `n` alive keeps those. Among equal scores the
    lower index goes first. With 2:4, `torch.sparse.to_sparse_semi_structured` takes the weight of a linear layer on
    GPUs that have it.

    Errors: n below 0, m below 1, n above m; a score that is NaN.
    Source: Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021 (2:4).
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        check_whole(0, n=self.n)
        check_whole(1, m=self.m)
        if self.n > self.m:
            raise ValueError(f"n must be at most m: got {self.n} of {self.m}")

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
        if scores.shape != mask.shape:
            raise ValueError(f"the scores of {name!r} have shape {tuple(scores.shape)}, its mask {tuple(mask.shape)}")
        if bool(scores[mask].isnan().any()):
            raise ValueError(f"the scores of {name!r} hold NaN")
        whole = mask.shape[1] // self.m * self.m
        order = torch.where(mask, scores.double(), -torch.inf).narrow(1, 0, whole).movedim(1, -1)
        order = order.unflatten(-1, (-1, self.m)) if whole else order[..., None]
        order = order.sort(dim=-1, stable=True).indices  # equal ones in order: the lower goes first
        places = order[..., self.m - self.n :]
        chosen = torch.zeros_like(order, dtype=torch.bool).scatter_(-1, places, True).flatten(-2).movedim(-1, 1)
        kept = mask.clone()
        kept.narrow(1, 0, whole).logical_and_(chosen)
        return kept
