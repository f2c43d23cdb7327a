"""A weight without its zeros, as held by graphs and read from packed files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sparsight.checkpoint.entry import Entry
from sparsight.checkpoint.packed.read import nonzeros

_SMALL = 2**31  # smaller indices take four bytes


@dataclass(frozen=True, eq=False)
class Weight:
    """The nonzeros of a tensor: row-major indices (ascending) and values (float32)."""

    shape: tuple[int, ...]
    places: np.ndarray
    values: np.ndarray

    @staticmethod
    def of(dense: np.ndarray | Tensor) -> Weight:
        array = dense.detach().float().numpy() if isinstance(dense, Tensor) else dense
        flat = np.ascontiguousarray(array).reshape(-1)
        places = np.flatnonzero(flat)
        return Weight(array.shape, places.astype(_kind(flat.size)), flat[places].astype(np.float32))

    @staticmethod
    def stored(entry: Entry) -> Weight:
        """The weight of a packed tensor, read without a dense one. Raises: as `nonzeros`."""
        dtype, kind = getattr(torch, entry.dtype), _kind(entry.count)
        places, values = [np.empty(0, kind)], [np.empty(0, np.float32)]
        for where, words in nonzeros(entry):
            found = torch.from_numpy(words.view(np.uint8)).view(dtype).float().numpy()
            places.append(where[found != 0].astype(kind))
            values.append(found[found != 0])
        return Weight(entry.shape, np.concatenate(places), np.concatenate(values))

    def __len__(self) -> int:
        """Number of rows (output channels)."""
        return self.shape[0]

    @property
    def inner(self) -> int:
        """Length of a row."""
        return math.prod(self.shape[1:])

    @property
    def density(self) -> float:
        return len(self.places) / max(1, math.prod(self.shape))

    def rows(self) -> np.ndarray:
        return self.places // max(1, self.inner)

    def counts(self) -> np.ndarray:
        """Nonzeros in each row."""
        return np.bincount(self.rows(), minlength=len(self))

    def taken_apart(self, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For (out, in / groups, height, width): the row, input channel and tap of each nonzero."""
        row, rest = np.divmod(self.places, max(1, self.inner))
        channel, tap = np.divmod(rest, self.shape[2] * self.shape[3])
        return row, channel + self.shape[1] * (row // (len(self) // groups)), tap

    def times(self, factor: float | np.ndarray) -> Weight:
        """Each row times its own number."""
        factors = np.asarray(factor, float)
        factors = factors[self.rows()] if factors.ndim else factors
        return replace(self, values=(self.values * factors).astype(np.float32))

    def kernels(self) -> Weight:
        """A matrix as 1 x 1 kernels."""
        return replace(self, shape=(*self.shape, 1, 1))

    def transposed(self) -> Weight:
        """The transposed matrix."""
        row, column = np.divmod(self.places, self.inner)
        order = np.argsort(column, kind="stable")
        places = column.astype(np.int64) * len(self) + row
        return Weight(self.shape[::-1], places[order].astype(self.places.dtype), self.values[order])


def _kind(size: int) -> type[np.integer]:
    return np.int32 if size < _SMALL else np.int64
