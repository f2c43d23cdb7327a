"""Where a tensor's weights are read from: memory, or a file, by `pread` into a buffer of the reader's."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from sparsight.checkpoint.entry import ITEMSIZE, CheckpointError, Entry

RAW = {"float64": np.float64, "float32": np.float32, "float16": np.int16, "bfloat16": np.uint16}
"""As what the kernels take each dtype."""


def source_of(entry: Entry, files: dict[Path, int], stack: ExitStack) -> np.ndarray | int:
    """The flat array of a tensor that is in memory or lies out of order, or else the file that it is in."""
    if entry.tensor is not None:
        return flat(entry.tensor)
    assert entry.path is not None
    if entry.path not in files:
        try:
            files[entry.path] = os.open(entry.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise CheckpointError(entry.path, error.strerror or str(error)) from error
        stack.callback(os.close, files[entry.path])
    if entry.strides is None:
        return files[entry.path]
    return _in_order(entry, files[entry.path])


def obstacle_of(entry: Entry, budget: int) -> str | None:
    """Why the budget does not allow an entry: one that lies out of order is read whole."""
    size = 2 * entry.count * ITEMSIZE.get(entry.dtype, 1)
    if entry.strides is None or size <= budget // 2:
        return None
    return f"it is stored transposed, and putting {size // 2:,} bytes in order takes more than the budget"


def _in_order(entry: Entry, file: int) -> np.ndarray:
    assert entry.strides is not None
    raw = np.dtype(RAW[entry.dtype])
    span = 1 + sum((n - 1) * s for n, s in zip(entry.shape, entry.strides, strict=True))
    memory = np.empty(span, raw)
    read_into(entry, file, entry.offset, memory)
    steps = [s * raw.itemsize for s in entry.strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(memory, entry.shape, steps)).reshape(-1)


def flat(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as a flat array: float16 as int16 and bfloat16 as uint16, as the kernels want them."""
    x = tensor.detach().cpu().contiguous().reshape(-1)
    if x.dtype in (torch.float16, torch.bfloat16):
        bits = x.view(torch.int16).numpy()
        return bits if x.dtype == torch.float16 else bits.view(np.uint16)
    return x.numpy()


def magnitudes(x: np.ndarray, dtype: str) -> np.ndarray:
    """|x| of what was read, exactly: in float64 of float64, else in float32."""
    if dtype == "bfloat16":
        x = (x.astype(np.uint32) << np.uint32(16)).view(np.float32)
    elif dtype == "float16":
        x = x.view(np.float16).astype(np.float32)
    return np.abs(x)


def read_into(entry: Entry, file: int, offset: int, out: np.ndarray) -> None:
    view = out.view(np.uint8).data
    at = 0
    while at < len(view):
        try:
            n = os.preadv(file, [view[at:]], offset + at)
        except OSError as error:
            raise CheckpointError(entry.path, f"reading {entry.name!r}: {error.strerror}") from error
        if n == 0:
            raise CheckpointError(entry.path, f"it ends inside {entry.name!r}; was it changed while it was read?")
        at += n
