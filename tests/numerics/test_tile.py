"""The tile kernels against their plain twin."""

from __future__ import annotations

import numpy as np
import pytest

from sparsight.numerics.kernels import tile
from sparsight.numerics.kernels.llvm import LANES

ROWS, CHANNELS, WIDTH = 5, 4, 12


def job(shape, first, last, added, low=-np.inf, high=np.inf, seed=0):
    """The words of a job over planes of 10 x 12 vectors, and the arrays it reads and writes."""
    rng = np.random.default_rng(seed)
    rows, cols, *_, masked, half = shape
    x = rng.standard_normal((CHANNELS, 10, WIDTH, LANES)).astype(np.float32)
    counts, order = np.array([0, 1, 7, 16, 3]), np.array([3, 0, 4, 1, 2], np.int32)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    pairs = np.empty((starts[-1], 2), np.int32)
    places = rng.integers(0, CHANNELS, len(pairs)) * 10 * WIDTH + rng.integers(0, 3, len(pairs)) * WIDTH
    pairs[:, 0] = 64 * (places + rng.integers(0, 3, len(pairs)))
    pairs[:, 1] = rng.standard_normal(len(pairs)).astype(np.float32).view(np.int32)
    if half:
        pairs = ((pairs[:, 0] // 64).astype(np.uint32) << 16) | (pairs[:, 1].view(np.uint32) >> 16)
    bias = rng.standard_normal(ROWS).astype(np.float32)
    scratch = rng.standard_normal((ROWS, rows * cols, LANES)).astype(np.float32)
    out = np.zeros((ROWS, rows, cols + 1, LANES), np.float32)
    add = rng.standard_normal(out.shape).astype(np.float32)
    keep = rng.integers(0, 2**16, (rows, cols + 4)).astype(np.uint16) if masked else np.zeros(1, np.uint16)
    values = {
        "x": x, "pitch": 64 * WIDTH, "stream": pairs, "starts": starts, "count": ROWS, "order": order,
        "scratch": scratch,
        "first": first, "last": last, "bias": bias, "out": out, "out_row": out[0].nbytes, "out_pitch": out[0, 0].nbytes,
        "add": add if added else 0, "add_row": add[0].nbytes, "add_pitch": add[0, 0].nbytes,
        "low": int(np.float32(low).view(np.int32)), "high": int(np.float32(high).view(np.int32)),
        "keep": keep, "keep_pitch": 2 * keep.shape[-1],
    }  # fmt: skip
    arrays = {name: aligned(v) for name, v in values.items() if isinstance(v, np.ndarray)}
    words = np.empty(tile.WORDS, np.int64)
    for name, value in values.items():
        words[getattr(tile, name.upper())] = arrays[name].ctypes.data if name in arrays else value
    return words, arrays


def aligned(array):
    memory = np.zeros(array.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64
    view = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


SHAPES = [
    (1, 1, 1, 1, 8, 0, 0, 0),
    (2, 2, 1, 1, 2, 0, 1, 1),
    (2, 7, 1, 1, 1, 0, 0, 0),
    (3, 2, 2, 1, 2, 64 * WIDTH, 1, 0),
    (1, 3, 1, 3, 4, 0, 0, 1),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("first", "last", "added"), [(1, 0, 0), (0, 0, 0), (0, 1, 1), (1, 1, 0)])
def test_a_tile_is_that_of_the_twin(shape, first, last, added):
    found = []
    for kernel in (tile.tile(shape), tile.tile_plainly(shape)):
        words, arrays = job(shape, first, last, added, low=-0.5, high=1.5)
        kernel.ctypes(words.ctypes.data)
        found.append(arrays)
    for name in ("out", "scratch"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-5, atol=1e-5)
    written = found[0]["out" if last else "scratch"]
    assert np.abs(written).sum() > 0


def test_clamping_passes_nan_on_and_the_mask_does_not():
    shape = (1, 1, 1, 1, 1, 0, 1, 0)
    words, arrays = job(shape, first=1, last=1, added=0, low=0.0, high=1.0)
    arrays["x"][...] = np.nan
    tile.tile(shape).ctypes(words.ctypes.data)
    kept = (arrays["keep"][0, 0] >> np.arange(LANES)) & 1 == 1
    empty, *others = arrays["out"][arrays["order"], 0, 0]
    assert np.isfinite(empty).all()  # its row has no weights
    for row in others:
        assert np.isnan(row[kept]).all()
        assert (row[~kept] == 0).all()
