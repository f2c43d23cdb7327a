"""Clearing the bits of pruned weights: a mask of bytes, so that a pass moves little more than the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numba import carray, types
from numba.extending import intrinsic
from torch import Tensor

from sparsight.numerics.kernels.jit import each, jit, summing

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integers of as many bytes as a weight has."""

_BLOCK = 2048
_ALONE = 1 << 20  # so many weights are not worth a second thread

Place = tuple[int, int, int]
"""Address of the first value, address of the mask's first byte (1 = kept), and how many there are.

The mask's address may be 0 in `sums_of_squares`: nothing is pruned. Addresses, since making arrays of many small
tensors takes longer than going through them.
"""

# An empty array tells a kernel its type: numba recognises it faster than a dtype.
_KINDS = {width: np.empty(0, f"i{width}") for width in BITS}
_REALS = {4: np.empty(0, np.float32), 8: np.empty(0, np.float64)}


def clear_plainly_(x: Tensor, mask: Tensor) -> None:
    """Write +0.0 where `mask` (bool, of the shape of `x`, on its device) is False. In tensor code, for any memory."""
    x.detach().view(BITS[x.element_size()]).masked_fill_(~mask, 0)


@jit
def _clear(bits, mask):
    for i in range(len(bits)):
        bits[i] = bits[i] if mask[i] else 0


@jit
def _clear_where_needed(bits, mask):
    found = False
    for start in range(0, len(bits), _BLOCK):
        part, kept = bits[start : start + _BLOCK], mask[start : start + _BLOCK]
        dirty = bits.dtype.type(0)
        for i in range(len(part)):
            dirty |= bits.dtype.type(0) if kept[i] else part[i]
        if dirty != 0:
            found = True
            for i in range(len(part)):
                part[i] = part[i] if kept[i] else 0
    return found


def _pointer(typing_context: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), codegen


_at: Any = intrinsic(_pointer)


@jit
def _through(rows, everything, kind):
    found = False
    for i in range(len(rows)):
        bits = carray(_at(rows[i, 0]), rows[i, 2], kind.dtype)
        mask = carray(_at(rows[i, 1]), rows[i, 2], np.uint8)
        if everything:
            _clear(bits, mask)
        elif _clear_where_needed(bits, mask):
            found = True
    return found


def table(places: Iterable[Place], width: int) -> np.ndarray:
    """The places as `clear` takes them, in pieces of at most a million values of `width` bytes."""
    return np.array([piece for place in places for piece in _pieces(place, width)], np.int64).reshape(-1, 3)


def clear(rows: np.ndarray, width: int, everything: bool = False) -> bool:
    """Write +0.0 over every pruned value of a table; True if one was anything else.

    Blocks of values are read first and written only if they need it: weights mostly stay clean. `everything` writes
    without looking, and returns False: gradients come dense.
    """
    kind = _KINDS[width]
    if len(rows) < 2 or torch.get_num_threads() == 1 or int(rows[:, 2].sum()) <= _ALONE:
        return _through(rows, everything, kind)
    return any(each(lambda i: _through(rows[i : i + 1], everything, kind), len(rows)))


def _pieces(place: Place, width: int) -> list[Place]:
    values, mask, count = place
    if 0 < count <= _ALONE:
        return [place]
    return [
        (values + start * width, mask and mask + start, min(_ALONE, count - start)) for start in range(0, count, _ALONE)
    ]


@summing
def _clear_and_square(values, mask):
    total = 0.0
    for i in range(len(values)):
        value = values[i] if mask[i] else values.dtype.type(0)
        values[i] = value
        total += np.float64(value) * np.float64(value)
    return total


@summing
def _square(values):
    total = 0.0
    for value in values:
        total += np.float64(value) * np.float64(value)
    return total


@jit
def _squares(table, out, kind):
    for i in range(len(table)):
        values = carray(_at(table[i, 0]), table[i, 2], kind.dtype)
        if table[i, 1]:
            out[i] = _clear_and_square(values, carray(_at(table[i, 1]), table[i, 2], np.uint8))
        else:
            out[i] = _square(values)


def sums_of_squares(places: Sequence[Place], width: int) -> list[float]:
    """Write the pruned values of all places as +0.0; for each place the float64 sum of the squares of what is left.

    Values of 4 or 8 bytes. Cut at fixed places and added up in order: the same bits for any number of threads, on one
    machine.
    """
    if not places:
        return []
    kind = _REALS[width]
    if sum(count for *_, count in places) <= _ALONE:
        sums = np.empty(len(places))
        _squares(np.array(places, np.int64), sums, kind)
        return sums.tolist()
    cut = [(i, piece) for i, place in enumerate(places) for piece in _pieces(place, width)]
    rows, parts = np.array([piece for _, piece in cut], np.int64), np.empty(len(cut))
    each(lambda i: _squares(rows[i : i + 1], parts[i : i + 1], kind), len(cut))
    of: list[list[float]] = [[] for _ in places]
    for (place, _), part in zip(cut, parts.tolist(), strict=True):
        of[place].append(part)
    return [math.fsum(found) for found in of]
