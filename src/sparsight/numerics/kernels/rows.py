"""Conversions between torch's rows and planes of vectors: lanes are images, or blocks of one image."""

from __future__ import annotations

from typing import Any

from numba import cfunc

from sparsight.numerics.kernels import planes as k
from sparsight.numerics.kernels.calls import put_real, real, word
from sparsight.numerics.kernels.jit import cached, jit
from sparsight.numerics.kernels.llvm import BYTES, LANES
from sparsight.numerics.kernels.planes import chunk_of, finish, input_of
from sparsight.numerics.kernels.vectors import vectors
from sparsight.numerics.kernels.vectors_llvm import STRIP

# -- from and to torch's rows, with images as lanes ---------------------------------------------------------------

# Bytes of an image, number of images, vectors side by side, 1: planes of one pixel.
IMAGE, IMAGES, WIDE, FLAT = range(k.OWN, k.OWN + 4)


@jit
def _run(out, step, x, image, images, length):
    """Write lanes from the rows of up to 16 images; missing lanes are 0."""
    full = length - length % LANES if images >= LANES else 0
    for j in range(0, full, LANES):
        vectors.transposed(out + j * step, step, x + 4 * j, image)
    for j in range(full, length):
        for lane in range(LANES):
            put_real(out + j * step, lane, real(x + lane * image, j) if lane < images else 0.0)


@jit
def _run_back(out, image, x, step, images, length):
    full = length - length % LANES if images >= LANES else 0
    for j in range(0, full, LANES):
        vectors.transposed(out + 4 * j, image, x + j * step, step)
    for j in range(full, length):
        for lane in range(min(images, LANES)):
            put_real(out + lane * image, j, real(x + j * step, lane))


@cached(cfunc, k.OPERATION)
def to_lanes(op, slots, scratch, chunk):
    group, begin, end, out = chunk_of(op, slots, chunk)
    rows, cols, image, wide = word(op, k.ROWS), word(op, k.COLS), word(op, IMAGE), word(op, WIDE)
    x = word(slots, word(op, k.X)) + word(op, k.X_AT) + begin * word(op, k.X_ROW)
    for u in range(wide):
        first = (group * wide + u) * LANES
        images = word(op, IMAGES) - first
        at = x + first * image
        if word(op, FLAT):
            _run(out + BYTES * u, word(op, k.OUT_ROW), at, image, images, end - begin)
        else:
            for n in range(end - begin):
                for i in range(rows):
                    to = out + n * word(op, k.OUT_ROW) + i * word(op, k.OUT_PITCH)
                    _run(to, BYTES, at + n * word(op, k.X_ROW) + 4 * i * cols, image, images, cols)
    finish(op, out, end - begin)


@cached(cfunc, k.OPERATION)
def from_lanes(op, slots, scratch, chunk):
    group, begin, end, _ = chunk_of(op, slots, chunk)
    rows, cols, image, wide = word(op, k.X_ROWS), word(op, k.X_COLS), word(op, IMAGE), word(op, WIDE)
    x = input_of(op, slots, group, begin)
    out = word(slots, word(op, k.OUT)) + word(op, k.OUT_AT) + begin * word(op, k.OUT_ROW)
    for u in range(wide):
        first = (group * wide + u) * LANES
        images = word(op, IMAGES) - first
        to = out + first * image
        if word(op, FLAT):
            _run_back(to, image, x + BYTES * u, word(op, k.X_ROW), images, end - begin)
        else:
            for n in range(end - begin):
                for i in range(rows):
                    at = x + n * word(op, k.X_ROW) + i * word(op, k.X_PITCH)
                    _run_back(to + n * word(op, k.OUT_ROW) + 4 * i * cols, image, at, BYTES, images, cols)


# -- from and to torch's rows, with blocks of one image as lanes --------------------------------------------------

STRIPS, STRIP_COUNT = k.OWN, k.OWN + 1


def _strips(inward: bool) -> Any:
    def run(op, slots, scratch, chunk):
        group, begin, end, out = chunk_of(op, slots, chunk)
        x = input_of(op, slots, group, begin)
        for n in range(end - begin):
            to, source = out + n * word(op, k.OUT_ROW), x + n * word(op, k.X_ROW)
            for i in range(word(op, STRIP_COUNT)):
                strip = word(op, STRIPS) + 4 * STRIP * i
                if inward:
                    vectors.strip_in(to, source, strip)
                else:
                    vectors.strip_out(to, source, strip)

    return cached(cfunc, k.OPERATION)(run)


to_blocks, from_blocks = _strips(True), _strips(False)
