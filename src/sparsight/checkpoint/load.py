"""The tensors of a checkpoint, by name. No code in it is run."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsight.checkpoint.entry import Checkpoint, CheckpointError, Entry, read_bytes


def load_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Every tensor of the network under each of its names, in memory of its own.

    CheckpointError for one that cannot be read.
    """
    found = {}
    for entry in checkpoint.entries:
        if entry.part != "network" or not entry.dtype:
            continue
        tensor = _tensor(checkpoint, entry)
        found |= dict.fromkeys((entry.name, *entry.aliases), tensor)
    return found


def _tensor(checkpoint: Checkpoint, entry: Entry) -> Tensor:
    if entry.obstacle is not None:
        raise CheckpointError(entry.path or checkpoint.source, f"{entry.name!r:.80} cannot be read: {entry.obstacle}")
    if entry.tensor is not None:
        return entry.tensor.clone()
    dtype = getattr(torch, entry.dtype, None)
    if not isinstance(dtype, torch.dtype) or entry.path is None:
        raise CheckpointError(entry.path or checkpoint.source, f"{entry.name!r:.80} has the dtype {entry.dtype!r:.40}")
    if not entry.count:
        return torch.empty(entry.shape, dtype=dtype)
    strides = entry.strides
    reach = entry.count if strides is None else 1 + sum((n - 1) * s for n, s in zip(entry.shape, strides, strict=True))
    content = bytearray(read_bytes(entry.path, entry.offset, reach * dtype.itemsize))
    flat = torch.frombuffer(content, dtype=dtype)
    return flat.reshape(entry.shape) if strides is None else flat.as_strided(entry.shape, strides).contiguous()
