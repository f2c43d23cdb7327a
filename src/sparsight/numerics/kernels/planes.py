"""Operations on planes of vectors: finishing (activation, halo), pooling, sums, means, and conversions of layout.

The first words of each operation describe the layout of its output and how to finish planes; see `sparse_conv`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cfunc, types

from sparsight.numerics.kernels.calls import call, put_real, real, small, word
from sparsight.numerics.kernels.jit import cached, fused, jit
from sparsight.numerics.kernels.llvm import BYTES, LANES
from sparsight.numerics.kernels.vectors import vectors

OPERATION = types.void(types.int64, types.int64, types.int64, types.int64)
"""Type of an operation in a table: its words, the call's slots, the thread's scratch, the chunk's number."""

FINISH = types.void(*[types.int64] * 7)
"""Finishes planes: address of the first pixel, number of planes, bytes between them, pitch, rows, columns, halo."""

# A place is a slot (an address of the call) and an offset in bytes; GROUP is bytes from a group of images to the next.
# OUT is the first pixel of the first channel. Channels are divided into PARTS, with their limits at BOUNDS (int32).
OUT, OUT_AT, OUT_GROUP, OUT_ROW, OUT_PITCH, ROWS, COLS, HALO, ACTIVATE, FILL, PARTS, BOUNDS = range(12)
X, X_AT, X_GROUP, X_ROW, X_PITCH, X_ROWS, X_COLS = range(12, 19)
OWN = 19  # the first word that depends on the kind of operation
# Sums, convolutions and matrices: limits of finished values, and the place of the summand (ADD 0: none).
LOW, HIGH, ADD, ADD_AT, ADD_GROUP, ADD_ROW, ADD_PITCH = range(OWN, OWN + 7)
MORE = OWN + 7


@jit
def chunk_of(op, slots, chunk):
    """Group, first channel, channel after the last, and address of the first channel's first pixel."""
    parts = word(op, PARTS)
    group, part = chunk // parts, chunk % parts
    begin, end = small(word(op, BOUNDS), part), small(word(op, BOUNDS), part + 1)
    out = word(slots, word(op, OUT)) + word(op, OUT_AT) + group * word(op, OUT_GROUP) + begin * word(op, OUT_ROW)
    return group, begin, end, out


@jit
def input_of(op, slots, group, begin):
    """Address of x: the first tap of the first pixel of the first channel."""
    return word(slots, word(op, X)) + word(op, X_AT) + group * word(op, X_GROUP) + begin * word(op, X_ROW)


@jit
def finish(op, out, count):
    """Apply the activation to finished planes and fill their halo."""
    row, pitch, halo = word(op, OUT_ROW), word(op, OUT_PITCH), word(op, HALO)
    planes = out, count, row, pitch, word(op, ROWS), word(op, COLS), halo
    if word(op, ACTIVATE):
        call(word(op, ACTIVATE), planes)
    if halo:
        call(word(op, FILL), planes)


@cache
def halo(columns: int) -> Any:
    """Fills the halo of planes on a grid of this many columns; 0: lanes are images, and the halo is zero."""

    def fill(out, count, row, pitch, rows, cols, halo):
        for n in range(count):
            plane = out + n * row
            for i in range(rows):
                line = plane + i * pitch
                for k in range(halo):
                    vectors.neighbour(line - BYTES * (k + 1), line + BYTES * (cols - 1 - k), columns, 0, -1)
                    vectors.neighbour(line + BYTES * (cols + k), line + BYTES * k, columns, 0, 1)
            for k in range(halo):
                for j in range(-halo, cols + halo):
                    at = plane + BYTES * j
                    vectors.neighbour(at - (k + 1) * pitch, at + (rows - 1 - k) * pitch, columns, -1, 0)
                    vectors.neighbour(at + (rows + k) * pitch, at + k * pitch, columns, 1, 0)

    return cached(cfunc, FINISH)(fill)


# -- activations, without branches: loops over them are vectorised -------------------------------------------------

_F = np.float32
_LN2, _LN2_REST = _F(0.693145751953125), _F(1.42860682030941723e-06)


@fused
def _exp(x):
    """e^x to 2 units in the last place: 2^k times a polynomial on [-ln 2 / 2, ln 2 / 2]; NaN stays."""
    x = _F(-87) if x < _F(-87) else x
    x = _F(88) if x > _F(88) else x
    k = _F(np.rint(x * _F(1.4426950408889634)))
    r = x - k * _LN2 - k * _LN2_REST
    p = ((_F(1 / 5040) * r + _F(1 / 720)) * r + _F(1 / 120)) * r + _F(1 / 24)
    p = (((p * r + _F(1 / 6)) * r + _F(0.5)) * r + _F(1)) * r + _F(1)
    power = np.int32(k) if k == k else np.int32(0)  # NaN has no integer value
    return _F(p * np.int32((power + np.int32(127)) << np.int32(23)).view(np.float32))


@fused
def _erf(x):
    """Abramowitz and Stegun 7.1.26; the error is at most 1.5e-7."""
    size = abs(x)
    t = _F(1) / (size * _F(0.3275911) + _F(1))
    p = (_F(1.061405429) * t + _F(-1.453152027)) * t + _F(1.421413741)
    p = ((p * t + _F(-0.284496736)) * t + _F(0.254829592)) * t
    value = _F(1) - p * _exp(-(size * size))
    return value if x >= _F(0) else -value


@fused
def _silu(x):
    return x / (_F(1) + _exp(-x))


@fused
def _gelu(x):
    return _F(0.5) * x * (_F(1) + _erf(x * _F(0.5**0.5)))


@fused
def _gelu_tanh(x):
    inner = x * (x * x * _F(0.044715) + _F(1))
    return x / (_F(1) + _exp(inner * _F(-2 * 0.7978845608028654)))


_SMOOTH = ("silu", "gelu", "gelu_tanh")
CLAMPS = {"": (-float("inf"), float("inf")), "relu": (0.0, float("inf")), "relu6": (0.0, 6.0)}
"""Activations that are clamps, with their limits."""


@cache
def activation(name: str) -> Any:
    """The kernel of an activation other than a clamp."""
    kind = _SMOOTH.index(name)

    def activate(out, count, row, pitch, rows, cols, halo):
        for n in range(count):
            for i in range(rows):
                line = out + n * row + i * pitch
                for k in range(LANES * cols):
                    x = real(line, k)
                    put_real(line, k, _silu(x) if kind == 0 else _gelu(x) if kind == 1 else _gelu_tanh(x))

    return cached(cfunc, FINISH)(activate)


# -- pooling -----------------------------------------------------------------------------------------------------

KERNEL_ROWS, KERNEL_COLS, STRIDE_ROWS, STRIDE_COLS, BORDER, DILATION, KEEP, EDGES = range(OWN, OWN + 8)


@cached(cfunc, OPERATION)
def max_pool(op, slots, scratch, chunk):
    group, begin, end, out = chunk_of(op, slots, chunk)
    x, pitch, border = input_of(op, slots, group, begin), word(op, X_PITCH), word(op, BORDER)
    down, right = word(op, STRIDE_ROWS) * pitch, word(op, STRIDE_COLS) * BYTES
    dilation, rows, cols = word(op, DILATION), word(op, KERNEL_ROWS), word(op, KERNEL_COLS)
    for n in range(end - begin):
        for i in range(word(op, ROWS)):
            for j in range(word(op, COLS)):
                to = out + n * word(op, OUT_ROW) + i * word(op, OUT_PITCH) + j * BYTES
                at = i * down + j * right
                source = x + n * word(op, X_ROW) + at
                if small(word(op, EDGES), i * word(op, COLS) + j):
                    vectors.largest_at_border(to, source, rows, cols, dilation * pitch, dilation * BYTES, border + at)
                else:
                    vectors.largest(to, source, rows, cols, dilation * pitch, dilation * BYTES)
                vectors.kept(to, word(op, KEEP) + 2 * (i * word(op, COLS) + j))
    finish(op, out, end - begin)


@cached(cfunc, OPERATION)
def average_pool(op, slots, scratch, chunk):
    group, begin, end, out = chunk_of(op, slots, chunk)
    x, pitch, share = input_of(op, slots, group, begin), word(op, X_PITCH), word(op, BORDER)
    down, right = word(op, STRIDE_ROWS) * pitch, word(op, STRIDE_COLS) * BYTES
    for n in range(end - begin):
        for i in range(word(op, ROWS)):
            for j in range(word(op, COLS)):
                to = out + n * word(op, OUT_ROW) + i * word(op, OUT_PITCH) + j * BYTES
                at = x + n * word(op, X_ROW) + i * down + j * right
                vectors.summed(to, at, word(op, KERNEL_ROWS), word(op, KERNEL_COLS), pitch, BYTES)
                vectors.scaled(to, share + BYTES * (i * word(op, COLS) + j))
    finish(op, out, end - begin)


@cached(cfunc, OPERATION)
def mean(op, slots, scratch, chunk):
    """The mean of each plane: a vector if lanes are images, otherwise one number per channel.

    Rows are summed first: in one long sum of similar numbers, rounding errors would accumulate.
    """
    group, begin, end, out = chunk_of(op, slots, chunk)
    x, share, row = input_of(op, slots, group, begin), word(op, BORDER), scratch + BYTES
    for n in range(end - begin):
        for i in range(word(op, X_ROWS)):
            at = x + n * word(op, X_ROW) + i * word(op, X_PITCH)
            vectors.summed(row if i else scratch, at, 1, word(op, X_COLS), word(op, X_PITCH), BYTES)
            for lane in range(LANES if i else 0):
                put_real(scratch, lane, real(scratch, lane) + real(row, lane))
        vectors.scaled(scratch, share)
        if word(op, OUT_ROW) == BYTES:
            for lane in range(LANES):
                put_real(out + n * BYTES, lane, real(scratch, lane))
        else:
            total = 0.0
            for lane in range(LANES):
                total += real(scratch, lane)
            put_real(out + n * word(op, OUT_ROW), 0, total)


# -- sums and layouts --------------------------------------------------------------------------------------------


@jit
def clamped_sum(out, x, add, low, high, count):
    """out = x + add, clamped to [low, high]; NaN stays. With address 0 for `add`, nothing is added."""
    for k in range(count):
        value = real(x, k) + real(add, k) if add else real(x, k)
        value = low if value < low else value
        put_real(out, k, high if value > high else value)


@cached(cfunc, OPERATION)
def total(op, slots, scratch, chunk):
    """x plus `add`, if any, then clamped and finished. Also copies planes and applies single activations."""
    group, begin, end, out = chunk_of(op, slots, chunk)
    x = input_of(op, slots, group, begin)
    add = word(slots, word(op, ADD)) + word(op, ADD_AT) + group * word(op, ADD_GROUP) + begin * word(op, ADD_ROW)
    low, high = real(op + 8 * LOW, 0), real(op + 8 * HIGH, 0)
    for n in range(end - begin):
        for i in range(word(op, ROWS)):
            to = out + n * word(op, OUT_ROW) + i * word(op, OUT_PITCH)
            source = x + n * word(op, X_ROW) + i * word(op, X_PITCH)
            more = add + n * word(op, ADD_ROW) + i * word(op, ADD_PITCH) if word(op, ADD) else 0
            clamped_sum(to, source, more, low, high, LANES * word(op, COLS))
    finish(op, out, end - begin)


INDEX, COUNT = OWN, OWN + 1


@cached(cfunc, OPERATION)
def gather(op, slots, scratch, chunk):
    """Convert between any layouts: element i of an output plane is element index[i] of the input plane, 0 for -1."""
    group, begin, end, out = chunk_of(op, slots, chunk)
    x, index = input_of(op, slots, group, begin), word(op, INDEX)
    for n in range(end - begin):
        plane, to = x + n * word(op, X_ROW), out + n * word(op, OUT_ROW)
        for i in range(word(op, COUNT)):
            k = small(index, i)
            put_real(to, i, real(plane, k) if k >= 0 else 0.0)
