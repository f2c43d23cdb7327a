"""Operations on vectors, hand-written for LLVM, against their plain twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numba import njit
from torch import nn

from sparsight.deploy.runtime.layout import IMAGES, Layout
from sparsight.deploy.runtime.tables import strips_of
from sparsight.numerics.kernels import planes, vectors, vectors_llvm, vectors_plain
from sparsight.numerics.kernels.walk import aligned_copy


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return aligned_copy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def both(call, *arrays):
    """What a call leaves in its first array, with either kind of operation."""
    found = []
    for way in vectors_llvm, vectors_plain:
        copies = [aligned_copy(a) for a in arrays]
        call(way)(*(a.ctypes.data for a in copies))
        found.append(copies[0])
    return found


def same(call, *arrays) -> np.ndarray:
    fast, plain = both(call, *arrays)
    np.testing.assert_allclose(fast, plain, rtol=2e-6, atol=1e-6)
    return fast


def test_the_hand_written_ones_serve_here():
    assert vectors.vectors is vectors_llvm


@pytest.mark.parametrize("columns", [0, 1, 2, 4, 8, 16])
@pytest.mark.parametrize(("down", "right"), [(-1, 0), (1, 0), (0, -1), (0, 1)])
def test_neighbours(columns, down, right):
    def call(v):
        return njit(lambda out, x: v.neighbour(out, x, columns, down, right))

    assert np.count_nonzero(same(call, numbers(16), numbers(16, seed=1))) == (
        0 if not columns else 16 - (columns if down else 16 // columns)
    )


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh"])
def test_activations(name):
    x = aligned_copy(np.concatenate([10 * numbers(30), [0.0, -80.0]]).astype(np.float32))
    like = {"silu": nn.functional.silu, "gelu": nn.functional.gelu}
    like["gelu_tanh"] = lambda x: nn.functional.gelu(x, approximate="tanh")
    wanted = like[name](torch.from_numpy(x.copy())).numpy()
    planes.activation(name).ctypes(x.ctypes.data, 1, 0, 0, 1, 2, 0)
    np.testing.assert_allclose(x, wanted, rtol=2e-6, atol=1e-6)
    x[:] = np.nan
    planes.activation(name).ctypes(x.ctypes.data, 1, 0, 0, 1, 2, 0)
    assert np.isnan(x).all()


@pytest.mark.parametrize("special", [None, np.nan, np.inf])
def test_windows(special):
    x = numbers(5, 6, 16)
    if special is not None:
        x[1, 1] = special
    border = np.where(numbers(5, 6, 16, seed=2) > 0, 0, -np.inf).astype(np.float32)
    same(lambda v: njit(lambda out, x, e: v.largest_at_border(out, x, 3, 2, 6 * 64, 64, e)), numbers(16), x, border)
    same(lambda v: njit(lambda out, x: v.largest(out, x, 3, 2, 6 * 64, 64)), numbers(16), x)
    same(lambda v: njit(lambda out, x: v.summed(out, x, 3, 2, 6 * 64, 64)), numbers(16), x)


def test_products_and_masks():
    a, b = numbers(16), numbers(16, seed=1)
    bits = np.array([0b1010_0110_1111_0001, 0], np.uint16)
    assert np.array_equal(same(lambda v: njit(lambda a, b: v.scaled(a, b)), a, b), a * b)
    wanted = np.where((int(bits[0]) >> np.arange(16)) & 1, a, 0)
    assert np.array_equal(same(lambda v: njit(lambda a, b: v.kept(a, b)), a, bits), wanted)


def test_transposing():
    x = numbers(16, 20)
    out = same(lambda v: njit(lambda out, x: v.transposed(out, 72, x, 80)), numbers(16, 18), x)
    assert np.array_equal(out[:, :16], x[:, :16].T)


@pytest.mark.parametrize("layout", [
    Layout((7, 9), (4, 4), (2, 3), 1), Layout((20, 33), (2, 8), (10, 5), 2), Layout((3, 40), (1, 16), (3, 3)),
])  # fmt: skip
def test_strips_go_in_and_come_out(layout):
    assert layout.grid != IMAGES
    image, plane = numbers(*layout.size), numbers(layout.plane // 4)
    tables = [strips_of(layout, inward) for inward in (True, False)]
    numbers_of_a_strip = tables[0].shape[1]

    def inward(v):
        n = len(tables[0])
        return njit(lambda out, x, s: [v.strip_in(out, x, s + 4 * numbers_of_a_strip * i) for i in range(n)])

    def outward(v):
        n = len(tables[1])
        return njit(lambda out, x, s: [v.strip_out(out, x, s + 4 * numbers_of_a_strip * i) for i in range(n)])

    filled = same(inward, plane, image, tables[0])
    assert np.array_equal(same(outward, np.zeros_like(image), filled, tables[1]), image)
