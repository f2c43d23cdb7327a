"""Random: the baseline that knows nothing."""

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
    """score ~ U[0, 1), float32, drawn from a generator of its own: the same `seed` gives the same scores.

    Drawn on the CPU and in parameter order, so that devices agree; the global random state is not touched.
    Pruning again with the same seed removes the next-smallest draws, so that masks are nested.
    """

    seed: int = 0

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch] = ()) -> Scores:
        check(model, masks)
        generator = Generator().manual_seed(self.seed)
        drawn = {name: torch.rand(m.shape, generator=generator, dtype=torch.float32) for name, m in masks.items()}
        return laid_out(model, {name: score.to(masks[name].device) for name, score in drawn.items()})
