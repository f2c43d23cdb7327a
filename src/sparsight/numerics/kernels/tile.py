"""Tiles of a sparse matrix times dense vectors (`tile_llvm`), compiled per shape, with a plain twin."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
from numba import cfunc, types
from numba.core.errors import NumbaError

from sparsight.numerics.kernels.calls import as_real, put_real, real, small, word
from sparsight.numerics.kernels.jit import cached, jit
from sparsight.numerics.kernels.tile_llvm import BYTES, LANES, WORDS, tile_rows

# numba passes an intrinsic's first argument itself
# pyright: reportCallIssue=false

KERNEL = types.void(types.int64)
Shape = tuple[int, int, int, int, int, int, int, int]
"""Rows, columns, strides, sets, pitch, masked and half, as in `tile_rows`."""

(
    X, PITCH, STREAM, STARTS, COUNT, ORDER, SCRATCH, FIRST, LAST, BIAS, OUT, OUT_ROW, OUT_PITCH,
    ADD, ADD_ROW, ADD_PITCH, LOW, HIGH, KEEP, KEEP_PITCH,
) = range(len(WORDS))  # fmt: skip


@cache
def tile(shape: Shape) -> Any:
    """The compiled kernel of a shape; its `address` is called with that of a job's words."""
    rows, cols, down, right, sets, pitch, masked, half = shape

    def kernel(job):
        tile_rows(job, rows, cols, down, right, sets, pitch, masked, half)

    try:
        return cached(cfunc, KERNEL)(kernel)
    except (NumbaError, RuntimeError, NotImplementedError) as error:
        warnings.warn(f"a kernel does not compile here, its slower twin serves: {error}", RuntimeWarning, 2)
        return tile_plainly(shape)


@jit
def nonzero(stream, k, half):
    """Offset in bytes and weight of a non-zero."""
    if not half:
        return small(stream, 2 * k), real(stream, 2 * k + 1)
    both = np.uint32(small(stream, k))
    return np.int64(both >> np.uint32(16)) * BYTES, as_real(both << np.uint32(16))


@cache
def tile_plainly(shape: Shape) -> Any:
    """The same, lane by lane."""
    rows, cols, down, right, _, _, masked, half = shape

    def kernel(job):
        low, high = real(job + 8 * LOW, 0), real(job + 8 * HIGH, 0)
        for i in range(word(job, COUNT)):
            begin, end, o = small(word(job, STARTS), i), small(word(job, STARTS), i + 1), small(word(job, ORDER), i)
            for r in range(rows):
                for c in range(cols):
                    x = word(job, X) + down * r * word(job, PITCH) + BYTES * right * c
                    partial = word(job, SCRATCH) + BYTES * (rows * cols * o + cols * r + c)
                    out = word(job, OUT) + o * word(job, OUT_ROW) + r * word(job, OUT_PITCH) + BYTES * c
                    add = word(job, ADD) + o * word(job, ADD_ROW) + r * word(job, ADD_PITCH) + BYTES * c
                    keep = word(word(job, KEEP) + r * word(job, KEEP_PITCH) + 2 * c, 0) if masked else -1
                    for lane in range(LANES):
                        total = real(word(job, BIAS), o) if word(job, FIRST) else real(partial, lane)
                        for k in range(begin, end):
                            at, weight = nonzero(word(job, STREAM), k, half)
                            total += weight * real(x + at, lane)
                        if not word(job, LAST):
                            put_real(partial, lane, total)
                            continue
                        if word(job, ADD):
                            total += real(add, lane)
                        total = low if total < low else high if total > high else total
                        put_real(out, lane, total if (keep >> lane) & 1 else 0.0)

    return cached(cfunc, KERNEL)(kernel)
