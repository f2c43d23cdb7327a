"""Clears pruned weights by a byte mask, which adds little memory traffic to that of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
import torch
from numba import carray
from torch import Tensor

from sparsight.numerics.kernels.calls import at, take
from sparsight.numerics.kernels.jit import jit, shared, summing

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer types by size in bytes, to view weights of the same size."""

_BLOCK = 2048
_PIECE = 1 << 17  # weights that a thread clears at once
_SUM = 1 << 20  # weights per partial sum of squares
_FEW = 4  # a second thread does not pay off for up to this many pieces

Place = tuple[int, int, int]
"""Address of the first value, address of the mask's first byte (1 = kept), and the number of values.

In `sums_of_squares` a mask's address may be 0: nothing is pruned. Addresses are used because making arrays of many
small tensors takes longer than processing them.
"""

# Empty arrays pass a type to a kernel: numba dispatches on them faster than on a dtype.
_KINDS = {width: np.empty(0, f"i{width}") for width in BITS}
_REALS = {width: np.empty(0, f"f{width}") for width in (4, 8)}


def clear_plainly_(x: Tensor, mask: Tensor) -> None:
    """Write +0.0 where `mask` (bool, with the shape and device of `x`) is False. Tensor code, for any memory."""
    x.detach().view(BITS[x.element_size()]).masked_fill_(~mask, 0)


@jit
def _clear(bits, mask, everything):
    found = False
    for start in range(0, len(bits), _BLOCK):
        part, kept = bits[start : start + _BLOCK], mask[start : start + _BLOCK]
        dirty = bits.dtype.type(everything)
        for i in range(0 if everything else len(part)):
            dirty |= bits.dtype.type(0) if kept[i] else part[i]
        if dirty != 0:
            found = not everything
            for i in range(len(part)):
                part[i] = part[i] if kept[i] else 0
    return found


@jit
def _through(rows, everything, kind):
    found = False
    for i in range(len(rows)):
        bits = carray(at(rows[i, 0]), rows[i, 2], kind.dtype)
        found |= _clear(bits, carray(at(rows[i, 1]), rows[i, 2], np.uint8), everything)
    return found


@cache
def _clear_shared(width: int) -> Callable[[int], None]:
    kind = _KINDS[width]

    def run(address):
        job = carray(at(address), 5, np.int64)
        rows = carray(at(job[2]), (job[1], 3), np.int64)
        everything, i = job[3] != 0, take(address)
        while i < len(rows):
            if _through(rows[i : i + 1], everything, kind):
                job[4] = 1
            i = take(address)

    return run


def table(places: Iterable[Place], width: int) -> np.ndarray:
    """The places as a table for `clear`, cut into pieces to divide among threads."""
    return np.array([piece for place in places for piece in _pieces(place, width, _PIECE)], np.int64).reshape(-1, 3)


def clear(rows: np.ndarray, width: int, everything: bool = False) -> bool:
    """Write +0.0 over every pruned value of a table; True if any value was different.

    Blocks are read first and written only if necessary: weights mostly stay clean. `everything` skips the check and
    returns False, for gradients, which are dense.
    """
    if len(rows) <= _FEW or torch.get_num_threads() == 1:
        return _through(rows, everything, _KINDS[width])
    *_, found = shared(_clear_shared(width), rows, everything, False)
    return bool(found)


def _pieces(place: Place, width: int, size: int) -> list[Place]:
    values, mask, count = place
    starts = range(0, max(count, 1), size)
    return [(values + at * width, mask and mask + at, min(size, count - at)) for at in starts]


@summing
def _square(values, mask):
    """The sum of squares, after clearing if there is a mask."""
    total = 0.0
    for i in range(len(values)):
        if mask is not None:  # for None, the branch is not compiled
            values[i] = values[i] if mask[i] else values.dtype.type(0)
        total += np.float64(values[i]) * np.float64(values[i])
    return total


@jit
def _squares(table, out, kind):
    for i in range(len(table)):
        values = carray(at(table[i, 0]), table[i, 2], kind.dtype)
        if table[i, 1]:
            out[i] = _square(values, carray(at(table[i, 1]), table[i, 2], np.uint8))
        else:
            out[i] = _square(values, None)


@cache
def _squares_shared(width: int) -> Callable[[int], None]:
    kind = _REALS[width]

    def run(address):
        job = carray(at(address), 4, np.int64)
        rows, out = carray(at(job[2]), (job[1], 3), np.int64), carray(at(job[3]), job[1], np.float64)
        i = take(address)
        while i < len(rows):
            _squares(rows[i : i + 1], out[i : i + 1], kind)
            i = take(address)

    return run


def sums_of_squares(places: Sequence[Place], width: int) -> list[float]:
    """Write +0.0 over the pruned values of all places; returns each place's sum of squares in float64.

    Values have 4 or 8 bytes. Partial sums have fixed limits and are added in order: on one machine, the bits are the
    same for any number of threads.
    """
    cut = [(i, piece) for i, place in enumerate(places) for piece in _pieces(place, width, _SUM)]
    rows, parts = np.array([piece for _, piece in cut], np.int64).reshape(-1, 3), np.empty(len(cut))
    if len(rows) <= _FEW or torch.get_num_threads() == 1:
        _squares(rows, parts, _REALS[width])
    else:
        shared(_squares_shared(width), rows, parts.ctypes.data)
    of: list[list[float]] = [[] for _ in places]
    for (place, _), part in zip(cut, parts.tolist(), strict=True):
        of[place].append(part)
    return [math.fsum(found) for found in of]
