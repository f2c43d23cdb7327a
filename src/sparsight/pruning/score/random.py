"""Random scores: a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, nn

from sparsight.model.masks import check
from sparsight.model.weights import laid_out
from sparsight.types import Batch, Masks, Scores


@dataclass(frozen=True)
class Random:
    """score ~ U[0, 1), float32, from its own generator: the same `seed` gives the same scores.

    Draws on the CPU in parameter order, without the global random state: all devices agree. Pruning again with the same
    seed gives nested masks.
    """

    seed: int = 0

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch] = ()) -> Scores:
        check(model, masks)
        generator = Generator().manual_seed(self.seed)
        drawn = {name: torch.rand(m.shape, generator=generator, dtype=torch.float32) for name, m in masks.items()}
        return laid_out(model, {name: score.to(masks[name].device) for name, score in drawn.items()})
