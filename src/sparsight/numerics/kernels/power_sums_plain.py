"""Sums of |x|^0.5, |x| and x^2 over a short array, in 16 lanes: the twin of `power_sums_llvm` in plain numba.

The order is the same, so that |x| and x^2 of the narrower floats have the same bits; roots are those of float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from sparsight.numerics.kernels.jit import jit

LANES = 16


def magnitude(x: Any, i: Any) -> Any:
    """|x[i]| in float64; uint16 holds the bits of bfloat16, int16 those of float16."""
    kind = {np.dtype(np.uint16): _bfloat16, np.dtype(np.int16): _float16}.get(x.dtype, _usual)
    return kind(x, i)


@overload(magnitude)
def _magnitude_of(x: Any, i: Any) -> Any:
    return {types.uint16: _bfloat16, types.int16: _float16}.get(x.dtype, _usual)


def _usual(x: Any, i: Any) -> Any:
    return abs(np.float64(x[i]))


def _bfloat16(x: Any, i: Any) -> Any:
    return np.float64(np.uint32((np.uint32(x[i]) & np.uint32(0x7FFF)) << np.uint32(16)).view(np.float32))


def _float16(x: Any, i: Any) -> Any:
    bits = np.int64(x[i]) & 0x7FFF
    if bits >= 0x7C00:
        return math.inf if bits == 0x7C00 else math.nan
    if bits < 0x400:
        return bits * 2.0**-24
    return math.ldexp(1024.0 + (bits & 0x3FF), int(bits >> 10) - 25)


@jit
def joined(lanes):
    """Halve until one is left: a fixed order."""
    n = LANES
    while n > 1:
        n //= 2
        for i in range(n):
            lanes[i] += lanes[i + n]
    return lanes[0]


@jit
def plain_sums(x, mask, start, n):
    """Sums of |x|^0.5, |x|, x^2, the largest and smallest magnitude, and how many, of x[start : start + n].

    `mask`, unless it is None, says which. NaN counts in the sums alone.
    """
    half, one, two = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    largest, smallest, count = 0.0, math.inf, 0
    for i in range(n):
        if mask is None or mask[start + i]:
            v, lane = magnitude(x, start + i), i % LANES
            half[lane] += math.sqrt(v)
            one[lane] += v
            two[lane] += v * v
            largest, smallest = v if v > largest else largest, v if v < smallest else smallest
            count += 1
    return joined(half), joined(one), joined(two), largest, smallest, count
