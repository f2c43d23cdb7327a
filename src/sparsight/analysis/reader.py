"""Where a tensor's weights are read from: memory, or a file, a part at a time."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sparsight.checkpoint.entry import ITEMSIZE, CheckpointError, Entry

RAW = {"float64": np.float64, "float32": np.float32, "float16": np.int16, "bfloat16": np.uint16}
"""As what the kernels take each dtype."""
_OTHERS = ("bool", "uint8", "int8", "int16", "int32", "int64")  # of masks
_MOST = 1 << 24  # bytes asked for at once where reading copies them
_seeking = threading.Lock()


@dataclass(frozen=True, eq=False)
class Source:
    """A tensor ready to be read: its flat array if it is in memory or lies out of order, else the file it is in."""

    entry: Entry
    values: np.ndarray | int
    mask: Source | None = None

    def read(self, first: int, last: int, memory: np.ndarray | None = None) -> np.ndarray:
        """Weights first..last as the kernels take them, from a file into `memory`, if that is given."""
        if self.mask is None:
            return self._read(first, last, memory)
        x, mask = (s._tensor(s._read(first, last)) for s in (self, self.mask))
        return flat(x * mask.to(x.dtype))

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        bits = x.view(np.int16) if self.entry.dtype in ("float16", "bfloat16") else x
        return torch.from_numpy(bits).view(getattr(torch, self.entry.dtype))

    def _read(self, first: int, last: int, memory: np.ndarray | None = None) -> np.ndarray:
        if isinstance(self.values, np.ndarray):
            return self.values[first:last]
        raw = _raw(self.entry)
        size = (last - first) * raw.itemsize
        x = (np.empty(size, np.uint8) if memory is None else memory[:size]).view(raw)
        _read_into(self.entry, self.values, self.entry.offset + first * raw.itemsize, x)
        return x


def source_of(entry: Entry, files: dict[Path, int], stack: ExitStack) -> Source:
    """Open what an entry is read from, each file once; `stack` closes it."""
    mask = None if entry.mask is None else source_of(entry.mask, files, stack)
    if entry.tensor is not None:
        return Source(entry, flat(entry.tensor), mask)
    assert entry.path is not None
    if entry.path not in files:
        try:
            files[entry.path] = os.open(entry.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise CheckpointError(entry.path, error.strerror or str(error)) from error
        stack.callback(os.close, files[entry.path])
    file = files[entry.path]
    return Source(entry, file if entry.strides is None else _in_order(entry, file), mask)


def raw_of(dtype: str) -> np.dtype | None:
    """As what numbers of a dtype are read; None if they cannot be."""
    return np.dtype(RAW[dtype]) if dtype in RAW else np.dtype(dtype) if dtype in _OTHERS else None


def _raw(entry: Entry) -> np.dtype:
    raw = raw_of(entry.dtype)
    assert raw is not None
    return raw


def obstacle_of(entry: Entry, budget: int) -> str | None:
    """Why the budget does not allow an entry: one that lies out of order is read whole."""
    whole = [e for e in (entry, entry.mask) if e is not None and e.strides is not None]
    size = sum(e.count * ITEMSIZE.get(e.dtype, 8) for e in whole)
    if 2 * size <= budget // 2:
        return None
    return f"it is stored transposed, and putting {size:,} bytes in order takes more than the budget"


def _in_order(entry: Entry, file: int) -> np.ndarray:
    assert entry.strides is not None
    raw = _raw(entry)
    span = 1 + sum((n - 1) * s for n, s in zip(entry.shape, entry.strides, strict=True))
    memory = np.empty(span, raw)
    _read_into(entry, file, entry.offset, memory)
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


def _read_into(entry: Entry, file: int, offset: int, out: np.ndarray) -> None:
    view = out.view(np.uint8).data
    at = 0
    while at < len(view):
        try:
            n = _read_some(file, offset + at, view[at:])
        except OSError as error:
            raise CheckpointError(entry.path, f"reading {entry.name!r}: {error.strerror}") from error
        if n == 0:
            raise CheckpointError(entry.path, f"it ends inside {entry.name!r}; was it changed while it was read?")
        at += n


def _read_some(file: int, offset: int, view: memoryview) -> int:
    """Read into `view` what there is at an offset, from several threads at once; how many bytes that was."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [view], offset)
    with _seeking:  # Windows has no reading at an offset: one thread moves and reads at a time
        os.lseek(file, offset, os.SEEK_SET)
        found = os.read(file, min(len(view), _MOST))
    view[: len(found)] = found
    return len(found)
