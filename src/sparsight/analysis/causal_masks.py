"""Causal masks, recognised by their values: a triangle of equal numbers and a triangle of zeros."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from sparsight.analysis.reader import magnitudes, raw_of, source_of
from sparsight.checkpoint.entry import Entry, read_bytes, row_major

_LEAST = 1000.0  # what masks that are added hold at least, but for the sign
_BLOCK = 1 << 20  # values looked at at once


def is_causal_mask(entry: Entry) -> bool:
    """Whether it is [n, n], or [1, …, n, n], of zeros on one side of the diagonal and ones on the other.

    These may be one large number instead, of either sign, or a band, as for a window; the diagonal is of either kind.
    Of other tensors three values at most are read.
    """
    shape = entry.shape
    square = len(shape) > 1 and shape[-1] == shape[-2] > 1 and entry.count == shape[-1] ** 2
    if not square or entry.obstacle is not None or entry.mask is not None or raw_of(entry.dtype) is None:
        return False
    if not _is_told(corner := _value(entry, 0, 0)):
        return False
    right, below = _value(entry, 0, 1), _value(entry, 1, 0)
    value = max(right, below)
    return min(right, below) == 0 != value and _is_told(value) and corner in (0, value) and _is_triangle(entry, value)


def _is_told(value: float) -> bool:
    """Whether a mask may hold it."""
    return value in (0, 1) or value >= _LEAST


def _value(entry: Entry, i: int, j: int) -> float:
    """The magnitude at [0, …, i, j]."""
    if entry.tensor is not None:
        return abs(float(entry.tensor[(0,) * (len(entry.shape) - 2)][i, j]))
    assert entry.path is not None
    raw = raw_of(entry.dtype)
    assert raw is not None
    down, along = (entry.strides or row_major(entry.shape))[-2:]
    found = read_bytes(entry.path, entry.offset + (i * down + j * along) * raw.itemsize, raw.itemsize)
    return float(magnitudes(np.frombuffer(found, raw), entry.dtype)[0])


def _is_triangle(entry: Entry, value: float) -> bool:
    """Whether each diagonal holds one number, and the band of those that are not 0 begins at the main one or beside."""
    n = entry.shape[-1]
    with ExitStack() as stack:
        source = source_of(entry, {}, stack)

        def rows(start: int, stop: int) -> np.ndarray:
            return magnitudes(source.read(start * n, stop * n), entry.dtype).reshape(-1, n)

        diagonals = np.concatenate([rows(n - 1, n)[0], rows(0, 1)[0, 1:]])  # from the lowest to the highest
        below, above = diagonals[: n - 1], diagonals[n:]
        if not np.isin(diagonals, (0, value)).all() or (below.any() and above.any()):
            return False
        every = np.lib.stride_tricks.sliding_window_view(diagonals, n)[::-1]
        step = max(_BLOCK // n, 1)
        return all(np.array_equal(rows(i, min(i + step, n)), every[i : i + step]) for i in range(0, n, step))
