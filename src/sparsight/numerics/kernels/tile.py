"""Tiles of a sparse matrix times dense vectors (`tile_llvm`), compiled per shape, with a plain twin."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cfunc, types

from sparsight.numerics.kernels.jit import cached
from sparsight.numerics.kernels.tile_llvm import WORDS, tile_rows

KERNEL = types.void(types.int64)
Shape = tuple[int, int, int, int, int, int, int]
"""Rows, columns, strides, sets, pitch and masked, as in `tile_rows`."""

(
    X, PITCH, STREAM, STARTS, COUNT, SCRATCH, FIRST, LAST, BIAS, OUT, OUT_ROW, OUT_PITCH,
    ADD, ADD_ROW, ADD_PITCH, LOW, HIGH, KEEP, KEEP_PITCH,
) = range(len(WORDS))  # fmt: skip


@cache
def tile(shape: Shape) -> Any:
    """The compiled kernel of a shape; its `address` is called with that of a job's words."""
    rows, cols, down, right, sets, pitch, masked = shape

    def kernel(job):
        tile_rows(job, rows, cols, down, right, sets, pitch, masked)

    return cached(cfunc, KERNEL)(kernel)
