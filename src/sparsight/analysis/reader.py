"""Reads a tensor's weights from memory or a file, part by part."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sparsight.checkpoint.entry import Entry, opened
from sparsight.checkpoint.reading import read_elements

RAW = {dtype: np.dtype(dtype) for dtype in ("float64", "float32", "bool", "uint8", "int8", "int16", "int32", "int64")}
RAW |= {"float16": np.dtype(np.int16), "bfloat16": np.dtype(np.uint16)}
"""The numpy dtype in which the kernels read each dtype; integers and booleans are masks."""


@dataclass(frozen=True, eq=False)
class Source:
    """A tensor to read: its flat array if it is in memory, otherwise its file."""

    entry: Entry
    values: np.ndarray | int
    mask: Source | None = None

    def read(self, first: int, last: int, memory: np.ndarray | None = None) -> np.ndarray:
        """Weights first..last for the kernels; reads from a file into `memory`, if given."""
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
        raw = RAW[self.entry.dtype]
        size = (last - first) * raw.itemsize
        x = (np.empty(size, np.uint8) if memory is None else memory[:size]).view(raw)
        read_elements(self.entry, self.values, first, last, x)
        return x


def source_of(entry: Entry, files: dict[Path, int], stack: ExitStack) -> Source:
    """Open an entry for reading, each file once; `stack` closes it."""
    mask = None if entry.mask is None else source_of(entry.mask, files, stack)
    if entry.tensor is not None:
        return Source(entry, flat(entry.tensor), mask)
    assert entry.path is not None
    if entry.path not in files:
        files[entry.path] = opened(entry.path, stack)
    return Source(entry, files[entry.path], mask)


def flat(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as a flat array, as the kernels expect it: float16 as int16, bfloat16 as uint16."""
    x = tensor.detach().cpu().contiguous().reshape(-1)
    if x.dtype in (torch.float16, torch.bfloat16):
        bits = x.view(torch.int16).numpy()
        return bits if x.dtype == torch.float16 else bits.view(np.uint16)
    return x.numpy()


def magnitudes(x: np.ndarray, dtype: str) -> np.ndarray:
    """The exact |x| of values as read: float64 for float64, otherwise float32."""
    if dtype == "bfloat16":
        x = (x.astype(np.uint32) << np.uint32(16)).view(np.float32)
    elif dtype == "float16":
        x = x.view(np.float16).astype(np.float32)
    return np.abs(x)
