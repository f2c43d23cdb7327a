"""The operations of `vectors_llvm`, lane by lane."""

from __future__ import annotations

import numpy as np

from sparsight.numerics.kernels.calls import put_real, real, small
from sparsight.numerics.kernels.jit import jit
from sparsight.numerics.kernels.llvm import BYTES, LANES
from sparsight.numerics.kernels.vectors_llvm import STRIP

_ROW, _BITS = 2, 2 + LANES  # of a strip: index of the lanes' rows and of their bits


@jit
def neighbour(out, x, columns, down, right):
    for lane in range(LANES):
        value = np.float32(0.0)
        if columns:
            row, col = lane // columns + down, lane % columns + right
            if 0 <= row < LANES // columns and 0 <= col < columns:
                value = real(x, row * columns + col)
        put_real(out, lane, value)


@jit
def largest(out, x, rows, cols, down, right):
    largest_at_border(out, x, rows, cols, down, right, None)


@jit
def largest_at_border(out, x, rows, cols, down, right, border):
    for lane in range(LANES):
        top = np.float32(-np.inf)
        for i in range(rows):
            for j in range(cols):
                at = i * down + j * right
                value = real(x + at, lane)
                if border is not None:
                    value += real(border + at, lane)
                if value > top or value != value:
                    top = value
                if top != top:
                    break
            if top != top:
                break
        put_real(out, lane, top)


@jit
def summed(out, x, rows, cols, down, right):
    for lane in range(LANES):
        total = np.float32(0.0)
        for i in range(rows):
            for j in range(cols):
                total += real(x + i * down + j * right, lane)
        put_real(out, lane, total)


@jit
def kept(out, bits):
    for lane in range(LANES):
        if not (small(bits, 0) >> lane) & 1:
            put_real(out, lane, np.float32(0.0))


@jit
def scaled(out, x):
    for lane in range(LANES):
        put_real(out, lane, real(out, lane) * real(x, lane))


@jit
def transposed(out, out_row, x, x_row):
    for i in range(LANES):
        for j in range(LANES):
            put_real(out + j * out_row, i, real(x + i * x_row, j))


@jit
def _there(strip, lane, j):
    """Whether a lane's row has its j-th number."""
    pair = small(strip, _BITS + lane // 2)
    return (pair >> (16 * (lane % 2) + j)) & 1


@jit
def strip_in(out, x, strip):
    for j in range(small(strip, 1)):
        for lane in range(LANES):
            value = np.float32(0.0)
            if _there(strip, lane, j):
                value = real(x + small(strip, _ROW + lane), j)
            put_real(out + small(strip, 0) + BYTES * j, lane, value)


@jit
def strip_out(out, x, strip):
    for j in range(small(strip, 1)):
        for lane in range(LANES):
            if _there(strip, lane, j):
                put_real(out + small(strip, _ROW + lane), j, real(x + small(strip, 0) + BYTES * j, lane))


assert _BITS + LANES // 2 == STRIP
