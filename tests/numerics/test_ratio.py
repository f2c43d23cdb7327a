"""SiPP's product with maxima: compiled, and in tensor code."""

from __future__ import annotations

import pytest
import torch

from sparsight.numerics.kernels import ratio

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
