"""The plain twin of the power sums serves where the vector code does not compile."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from numba import types
from numba.extending import intrinsic

from sparsight.numerics.kernels import power_sums as kernels
from sparsight.numerics.kernels.jit import or_twin


def sums(fill, x) -> np.ndarray:
    """Of |x| and x^2, as one row."""
    out = np.zeros((2, kernels.SUMS + 4))
    fill(x, None, 0, len(x), np.array([1.0, 2.0]), 1e30, 0, 2, out)
    return out


def test_the_twin_serves_where_the_vector_code_does_not_compile(monkeypatch):
    asked = []

    def refusing(typing_context, x, mask, start, n):
        def codegen(*_):
            asked.append(1)
            raise NotImplementedError("no such vectors on this machine")

        return types.UniTuple(types.float64, 6)(x, mask, start, n), codegen

    x = np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    expected = sums(kernels.fill, x)
    for name in ("half_and_one", "one_and_two", "half_one_two"):
        monkeypatch.setattr(kernels, name, intrinsic(refusing))
    monkeypatch.setattr(kernels, "_fill", numba.njit(kernels._fill.py_func, nogil=True, error_model="numpy"))
    served = or_twin(kernels._vectors, kernels.plain_fill)
    with pytest.warns(RuntimeWarning, match="does not compile here.*no such vectors"):
        assert np.array_equal(sums(served, x), expected)
    assert asked == [1]
