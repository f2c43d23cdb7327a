"""The vector code of the power sums beside its plain twin, which serves where the vector code does not compile."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparsight.numerics.kernels import power_sums as kernel
from sparsight.numerics.kernels.power_sums_plain import magnitude

ROWS, LENGTH = 3, 8_192 + 1_037  # a whole chunk, and one that ends within 16 lanes


def bits(x: torch.Tensor) -> np.ndarray:
    """As the kernels take it."""
    if x.dtype == torch.float16:
        return x.view(torch.int16).numpy()
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()


def lines(fill, x: np.ndarray, mask: np.ndarray | None, exponents: tuple[float, ...]) -> np.ndarray:
    table = np.full((2 * ROWS, kernel.SUMS + 2 * len(exponents)), np.nan)
    fill(x, mask, 0, LENGTH, np.array(exponents), 2.0 ** (900 / max(1.0, *exponents)), 0, 2 * ROWS, table)
    return table


KINDS = {
    "normal": lambda x: x,
    "zeros": lambda x: x * (x > 0),
    "huge": lambda x: x * (1e4 if x.dtype == torch.float16 else 1e37),
    "not finite": lambda x: torch.where(torch.arange(len(x)) == 9_000, torch.nan, x),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [False, True])
def test_the_twin_agrees(dtype: torch.dtype, kind: str, masked: bool):
    x = bits(KINDS[kind](torch.randn(ROWS * LENGTH, generator=torch.Generator().manual_seed(1)).to(dtype)))
    mask = np.random.default_rng(2).random(len(x)) < 0.6 if masked else None
    for exponents in ((0.5, 1.0), (1.0, 2.0), (0.5, 1.0, 2.0), (0.7,)):
        found, twin = lines(kernel.fill, x, mask, exponents), lines(kernel.plain_fill, x, mask, exponents)
        odd = ~np.isfinite(found[:, kernel.LARGEST])  # all that such a line says
        assert odd.sum() == (kind == "not finite" and bool(mask is None or mask[9_000]))
        assert np.array_equal(odd, ~np.isfinite(twin[:, kernel.LARGEST]))
        found, twin = found[~odd], twin[~odd]
        for j in range(found.shape[1]):
            e = exponents[j - kernel.SUMS] if kernel.SUMS <= j < kernel.SUMS + len(exponents) else None
            if e == 0.5 or (e == 2.0 and dtype == torch.float64):  # roots; a product that is rounded once more
                np.testing.assert_allclose(found[:, j], twin[:, j], rtol=3e-9 if e == 0.5 else 1e-14)
            else:
                np.testing.assert_array_equal(found[:, j], twin[:, j])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_number_of_16_bits(dtype: torch.dtype):
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    true = every.double().abs().numpy()
    x = bits(every)
    assert np.array_equal([magnitude(x, i) for i in range(len(x))], true, equal_nan=True)
