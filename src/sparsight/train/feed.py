"""Batches on their way into the loop: this process's part, their memory format, their number and size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsight.train.parallel import Runtime
from sparsight.types import Batch, Split


def part(batch: Batch, split: Any, runtime: Runtime) -> tuple[Batch, float]:
    """This process's part of a batch held in memory, and the weight that makes the averaged gradient the whole's.

    Batches of a foreign loader are taken as they are: it shards itself.
    """
    if runtime.world == 1 or not isinstance(split, Split):
        return batch, 1.0
    x, y = batch
    mine = slice(runtime.rank, None, runtime.world) if len(x) > runtime.rank else slice(0, 1)
    share = len(x[mine]) if len(x) > runtime.rank else 0
    return (x[mine], y[mine]), share * runtime.world / len(x)


def channels_last(batch: Batch) -> Batch:
    if isinstance(batch, Tensor):
        return batch.contiguous(memory_format=torch.channels_last) if batch.dim() == 4 else batch
    return type(batch)(channels_last(item) for item in batch) if type(batch) in (tuple, list) else batch


def length(split: Any, batch_size: int) -> int | None:
    """Batches of an epoch, or None for an iterable that does not tell."""
    if isinstance(split, Split):
        return -(-len(split) // batch_size)
    try:
        return len(split)
    except TypeError:
        return None


def size(batch: Batch) -> int:
    """Samples of a batch, to weight its loss by: the length of the first tensor inside; 1 if there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 1
    inside = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (list, tuple)) else ()
    return next((size(item) for item in inside if isinstance(item, (Tensor, dict, list, tuple))), 1)
