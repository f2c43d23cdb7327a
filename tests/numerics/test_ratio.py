"""SiPP's product with maxima: vector code, its plain twin, tensor code, and the twin that serves."""

from __future__ import annotations

import numba
import pytest
import torch
from numba.extending import intrinsic
from torch import nn

from sparsight.model.masks import dense
from sparsight.numerics.kernels import ratio, ratio_llvm
from sparsight.numerics.kernels.jit import or_twin
from sparsight.pruning.sipp.score import SiPP

SIZES = [(1, 1, 1), (3, 5, 17), (5, 70, 33), (8, 4, 64), (2, 3, 15)]


def draw(outputs, rows, columns, dtype):
    g = torch.Generator().manual_seed(0)
    a = torch.rand(rows, columns, generator=g, dtype=dtype)
    r = torch.rand(2, outputs, columns, generator=g, dtype=dtype)
    side = (torch.rand(outputs, rows, generator=g) < 0.5).to(torch.uint8)
    return a, r, side, torch.full((outputs, rows), 0.5, dtype=dtype), torch.ones(outputs, rows, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("outputs", "rows", "columns"), SIZES)
def test_compiled_kernel_and_tensor_code_agree(outputs, rows, columns, dtype):
    for work in (ratio.largest_and_total_, ratio.tensor_largest_and_total_):
        a, r, side, top, total = draw(outputs, rows, columns, dtype)
        work(a, r, side, top, total)
        chosen = torch.where(side.bool().unsqueeze(2), r[1].unsqueeze(1), r[0].unsqueeze(1)) * a
        assert torch.equal(top, chosen.amax(2).clamp(min=0.5))
        assert torch.allclose(total, 1 + chosen.sum(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("outputs", "rows", "columns"), SIZES)
def test_the_plain_twin_has_the_bits_of_the_vector_code(outputs, rows, columns, dtype):
    fast, plain = (draw(outputs, rows, columns, dtype) for _ in range(2))
    ratio.vector_block(*[t.numpy() for t in fast], 0, rows)
    ratio.plain_block(*[t.numpy() for t in plain], 0, rows)
    assert torch.equal(fast[3], plain[3])
    assert torch.equal(fast[4], plain[4])


def test_infinity_and_nan_are_the_same_in_both():
    fast, plain = (draw(5, 3, 33, torch.float32) for _ in range(2))
    for a, r, *_ in (fast, plain):
        a[0, 3], a[1, 16], r[:, 1, 20] = torch.inf, torch.nan, torch.nan
    ratio.vector_block(*[t.numpy() for t in fast], 0, 3)
    ratio.plain_block(*[t.numpy() for t in plain], 0, 3)
    for got, expected in zip(plain[3:], fast[3:], strict=True):
        assert torch.equal(got.isnan(), expected.isnan())
        assert torch.equal(got.nan_to_num(7.0, 8.0), expected.nan_to_num(7.0, 8.0))


def test_the_twin_serves_where_the_vector_code_does_not_compile(monkeypatch):
    g = torch.Generator().manual_seed(0)
    layer, x = nn.Conv2d(3, 6, 3), torch.randn(4, 3, 9, 9, generator=g)
    expected = SiPP("max")(layer, dense(layer), [(x, None)])["weight"]
    asked = []

    def refuse(*_):
        asked.append(1)
        raise NotImplementedError("no such vectors on this machine")

    monkeypatch.setattr(ratio_llvm, "_codegen", refuse)
    monkeypatch.setattr(ratio, "four_rows", intrinsic(ratio_llvm.four_rows._defn))  # not what is compiled already
    fresh = numba.njit(ratio._block.py_func, nogil=True, error_model="numpy")
    monkeypatch.setattr(ratio, "_block", fresh)
    monkeypatch.setattr(ratio, "_rows_of_inputs", or_twin(ratio.vector_block, ratio.plain_block))
    with pytest.warns(RuntimeWarning, match="(?s)does not compile here.*no such vectors"):
        found = SiPP("max")(layer, dense(layer), [(x, None)])["weight"]
    assert torch.equal(found, expected)
    once = len(asked)
    assert once
    assert torch.equal(SiPP("max")(layer, dense(layer), [(x, None)])["weight"], expected)  # and is not asked again
    assert len(asked) == once
