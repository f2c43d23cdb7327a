"""The sanity check of a mask: how much is kept of each tensor stays, which weights they are is drawn anew."""

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
    """What `allocator` decides, each tensor's mask then permuted at random within the tensor.

    So every tensor keeps as many weights as `allocator` gave it, all positions equally likely: if the network trains
    as well, only the density of each layer mattered. Weights that were pruned before may return (`monotone` is False):
    in a level of several rounds, wrap the last one. A floor for each row is lost; the records are those of `allocator`.
    Drawn on the CPU from `seed` and the tensor's name, so that devices agree and the global state is not touched.

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
