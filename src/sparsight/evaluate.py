"""What a network is worth on a split. Measuring changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsight.data import batches
from sparsight.parallel import Runtime
from sparsight.pure import evaluating
from sparsight.seeds import seeded
from sparsight.types import Batch, Split

Judge = Callable[[nn.Module, Batch], tuple[Tensor, Tensor, int]]


@dataclass(frozen=True)
class Worth:
    """Mean loss and accuracy (in [0, 1]) over `samples`."""

    accuracy: float
    loss: float
    samples: int


def evaluate(
    model: nn.Module, split: Split | Iterable[Batch], judge: Judge, runtime: Runtime, *, batch_size: int = 1000
) -> Worth:
    """Judge a network on a split, in eval mode and without gradients; parameters, flags and random state stay.

    ValueError if the split yields no sample.
    """
    total = torch.zeros(2, dtype=torch.float64, device=runtime.device)
    samples = 0
    with evaluating(model), seeded(0), torch.no_grad(), runtime.autocast():
        for batch in batches(split, batch_size, device=runtime.device):
            loss, correct, count = judge(model, batch)
            total += torch.stack((loss.double(), correct.double()))
            samples += count
    if not samples:
        raise ValueError("cannot evaluate on a split that yields no sample")
    return Worth(float(total[1]) / samples, float(total[0]) / samples, samples)
