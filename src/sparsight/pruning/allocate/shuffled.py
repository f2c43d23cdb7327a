"""A sanity check: keep the number of weights of each tensor, but choose them at random."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Generator

from sparsight.numerics.checks import check_seed
from sparsight.numerics.seeds import derive
from sparsight.types import Allocation, Allocator, Masks, Scores, check_allocator


@dataclass(frozen=True)
class Shuffled(Allocator):
    """The masks of `allocator`, each permuted at random within its tensor.

    If the network then trains as well, only the density of each layer mattered. Pruned weights may return (`monotone`
    is False): in a level of several rounds, wrap only the last. Floors of rows are lost; the records come from
    `allocator`. Draws on the CPU, from `seed` and the tensor's name, without the global random state.

    Source: Frankle et al., "Pruning Neural Networks at Initialization: Why are we missing the mark?", ICLR 2021.
    """

    allocator: Allocator
    seed: int = 0

    @property
    def monotone(self) -> bool:
        return False

    def __post_init__(self) -> None:
        check_allocator(self.allocator, "Shuffled")
        check_seed(self.seed)

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        allocation = self.allocator.plan(scores, masks)
        shuffled = {}
        for name, mask in allocation.masks.items():
            generator = Generator().manual_seed(derive(self.seed, "shuffle", name))
            order = torch.randperm(mask.numel(), generator=generator).to(mask.device)
            shuffled[name] = mask.reshape(-1)[order].reshape(mask.shape)
        return dataclasses.replace(allocation, masks=shuffled)
