"""A sparse matrix times one vector: by slots of 16 rows (`sell_llvm`), or row by row where there is no AVX-512."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import cfunc

from sparsight.numerics.kernels import planes
from sparsight.numerics.kernels.calls import call, put_real, real, small, word
from sparsight.numerics.kernels.jit import cached, has, jit, summing
from sparsight.numerics.kernels.planes import OPERATION, OWN, X_AT, X, chunk_of
from sparsight.numerics.kernels.sell_llvm import WINDOW, sixteen_rows
from sparsight.numerics.kernels.tile_llvm import BYTES, LANES
from sparsight.numerics.kernels.vectors import lanes as vectors
from sparsight.numerics.kernels.walk import aligned_copy

# numba passes an intrinsic's first argument itself
# pyright: reportCallIssue=false

BASES, PLACES, VALUES, STARTS, BIAS, LOW, HIGH, ADD, ADD_AT, PAIRS = range(OWN + 7, OWN + 17)
# PARTS cut groups of 16 rows; OUT_ROW is 64 bytes.


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16 (uint16)."""
    return torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)


@jit
def _slots(begins, columns, bases, places, values, weights):
    """Fill the slots of one group of rows, whose non-zeros begin at `begins`; how many there are."""
    rows = len(begins) - 1
    next_ = begins[:-1].copy()
    count = 0
    while True:
        base = np.int64(2**62)
        for lane in range(rows):
            if next_[lane] < begins[lane + 1]:
                base = min(base, np.int64(columns[next_[lane]]))
        if base == 2**62:
            return count
        bases[count] = base
        for lane in range(rows):
            at = next_[lane]
            if at < begins[lane + 1] and columns[at] < base + WINDOW:
                places[count, lane] = columns[at] - base
                values[count, lane] = weights[at]
                next_[lane] = at + 1
        count += 1


def slots(matrix: np.ndarray, half: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bases (n), places (n, 16), values (n, 16), first slot of each group of rows, of a matrix (rows, columns).

    `half`: values are the bits of bfloat16.
    """
    row, column = np.nonzero(matrix)
    weights = matrix[row, column].astype(np.float32, copy=False)
    begins = np.searchsorted(row, np.arange(len(matrix) + 1))
    bases, places = np.zeros(len(row), np.int32), np.zeros((len(row), LANES), np.uint8)
    values = np.zeros((len(row), LANES), np.float32)
    starts = [0]
    for first in range(0, len(matrix), LANES):
        at = starts[-1]
        group = begins[first : first + LANES + 1]
        starts.append(at + _slots(group, column, bases[at:], places[at:], values[at:], weights))
    n = starts[-1]
    kept = bfloat16(values[:n]) if half else values[:n]
    return aligned_copy(bases[:n]), aligned_copy(places[:n]), aligned_copy(kept), np.array(starts, np.int32)


@jit
def _finished(op, slots, out, begin, end):
    """Bias, sum, clamp and activation of finished groups of 16 rows."""
    bias, add = word(op, BIAS), word(slots, word(op, ADD)) + word(op, ADD_AT)
    low, high = real(op + 8 * LOW, 0), real(op + 8 * HIGH, 0)
    for g in range(begin, end):
        at = out + (g - begin) * BYTES
        vectors.added(at, bias + g * BYTES)
        if word(op, ADD):
            vectors.added(at, add + g * BYTES)
        vectors.clamped(at, low, high)
    if word(op, planes.ACTIVATE):
        call(word(op, planes.ACTIVATE), (out, 1, 0, 0, 1, end - begin, 0))


def _by_slots(op, slots, scratch, chunk):
    _, begin, end, out = chunk_of(op, slots, chunk)
    x, starts = word(slots, word(op, X)) + word(op, X_AT), word(op, STARTS)
    for g in range(begin, end):
        sixteen_rows(
            x, word(op, BASES), word(op, PLACES), word(op, VALUES), small(starts, g), small(starts, g + 1),
            out + (g - begin) * BYTES, 0,
        )  # fmt: skip
    _finished(op, slots, out, begin, end)


def _by_slots_half(op, slots, scratch, chunk):
    _, begin, end, out = chunk_of(op, slots, chunk)
    x, starts = word(slots, word(op, X)) + word(op, X_AT), word(op, STARTS)
    for g in range(begin, end):
        sixteen_rows(
            x, word(op, BASES), word(op, PLACES), word(op, VALUES), small(starts, g), small(starts, g + 1),
            out + (g - begin) * BYTES, 1,
        )  # fmt: skip
    _finished(op, slots, out, begin, end)


@summing
def _row(x, pairs, begin, end):
    total = np.float32(0)
    for i in range(begin, end):
        total += real(x + small(pairs, 2 * i), 0) * real(pairs, 2 * i + 1)
    return total


def _by_rows(op, slots, scratch, chunk):
    _, begin, end, out = chunk_of(op, slots, chunk)
    x, starts = word(slots, word(op, X)) + word(op, X_AT), word(op, STARTS)
    for g in range(begin, end):
        for lane in range(LANES):
            row = LANES * g + lane
            put_real(
                out + (g - begin) * BYTES, lane, _row(x, word(op, PAIRS), small(starts, row), small(starts, row + 1))
            )
    _finished(op, slots, out, begin, end)


by_rows: Any = cached(cfunc, OPERATION)(_by_rows)


@cache
def by_slots(half: bool) -> Any | None:
    """The kernel for slots, with values in bfloat16 or not; None where the machine has no AVX-512."""
    if not has("avx512f"):
        return None
    return cached(cfunc, OPERATION)(_by_slots_half if half else _by_slots)
