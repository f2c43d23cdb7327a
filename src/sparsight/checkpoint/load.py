"""The tensors of a checkpoint, by name. No code in it is run."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparsight.checkpoint.descriptor import opened
from sparsight.checkpoint.entry import Checkpoint, CheckpointError, Entry
from sparsight.checkpoint.open import open_checkpoint
from sparsight.checkpoint.reading import read_elements
from sparsight.numerics.kernels.jit import each

_RAW = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}  # by the bytes of an element


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Load a state dict: every tensor of the network under each of its names; tied ones are one tensor.

    `path` is a packed file, safetensors, a `.pt` or `.bin` file of PyTorch, shards, or a folder of these. No code
    in it is run. Raises: CheckpointError for a damaged file, before any tensor is returned.
    """
    return load_tensors(open_checkpoint(Path(path)))


def load_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Copies of all tensors of the network, under each of their names. Raises: CheckpointError."""
    wanted = [entry for entry in checkpoint.entries if entry.part == "network" and entry.dtype]
    found = {}
    for entry, tensor in zip(wanted, each(lambda i: _tensor(checkpoint, wanted[i]), len(wanted)), strict=True):
        found |= dict.fromkeys((entry.name, *entry.aliases), tensor)
        found |= {other.name: _tensor(checkpoint, other) for other in entry.turned if other.name in entry.aliases}
    return found


def _tensor(checkpoint: Checkpoint, entry: Entry) -> Tensor:
    if entry.obstacle is not None:
        raise CheckpointError(entry.path or checkpoint.source, f"{entry.name!r:.80} cannot be read: {entry.obstacle}")
    if entry.tensor is not None:
        return entry.tensor.clone()
    dtype = getattr(torch, entry.dtype, None)
    if not isinstance(dtype, torch.dtype) or entry.path is None:
        raise CheckpointError(entry.path or checkpoint.source, f"{entry.name!r:.80} has the dtype {entry.dtype!r:.40}")
    try:
        tensor = torch.empty(entry.shape, dtype=dtype)
    except RuntimeError as error:
        raise CheckpointError(entry.path, f"{entry.name!r:.80} needs more memory than there is") from error
    if entry.count:
        with ExitStack() as stack:
            out = tensor.view(-1).view(torch.uint8).numpy().view(_RAW[dtype.itemsize])
            read_elements(entry, opened(entry.path, stack), 0, entry.count, out)
    return tensor
