"""Magnitudes of stored numbers in numba: as ordered integers, as floats, and their square roots."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

_RECIPROCAL = 0x7F000000 - 719_700  # minus the bits of s: about 1/s, with its error balanced over [1, 2]


def magnitude(raw) -> Any:
    """The bits of |x|, for x as stored in an array: integers in the order of magnitudes, with NaN as the largest."""


@overload(magnitude)
def _magnitude(raw):
    return {types.float64: _float64, types.float32: _float32, types.uint16: _bfloat16, types.int16: _float16}[raw]


def _float64(raw):
    return np.float64(abs(raw)).view(np.int64)


def _float32(raw):
    return np.float32(abs(raw)).view(np.int32)


def _bfloat16(raw):
    return np.int32((raw & np.int32(0x7FFF)) << np.int32(16))


def _float16(raw):
    bits = np.int32(raw & np.int32(0x7FFF))
    if bits < 0x400:
        return np.float32(np.float32(bits) * np.float32(2.0**-24)).view(np.int32)
    return np.int32((bits << np.int32(13)) + np.int32((112 if bits < 0x7C00 else 224) << 23))


def number(bits) -> Any:
    """The magnitude as float32 or float64."""


@overload(number)
def _number(bits):
    if bits == types.int64:
        return lambda bits: np.int64(bits).view(np.float64)
    return lambda bits: np.int32(bits).view(np.float32)


def infinity_of(bits) -> Any:
    """The bits of infinity, in the same type."""


@overload(infinity_of)
def _infinity(bits):
    return (lambda bits: np.int64(0x7FF << 52)) if bits == types.int64 else (lambda bits: np.int32(0xFF << 23))


def root_of(v) -> Any:
    """The square root of a magnitude, and twice its rounding error.

    In float32 the error is up to 2^-24 / m, with significand m in [1, 2). Equal weights have equal errors: sums of ties
    would be off by as much. With s = sqrtf(v), v - s*s is exact in one fused multiply-add, and the error is
    (v - s*s) / (2s). A crude 1/s is enough: (a constant - the bits of s) is within 0.043 of 1/m, and one Newton step
    within 0.002, which leaves at most 1.2e-10. Counts of weights are snapped by 1e-9.
    """


@overload(root_of)
def _root(v):
    if v == types.float64:
        return lambda v: (math.sqrt(v), np.float32(0.0))

    def root(v):
        s = np.float32(math.sqrt(v))
        inverse = np.int32(_RECIPROCAL - s.view(np.int32)).view(np.float32)
        inverse *= np.float32(2.0) - s * inverse
        return s, np.float32(np.float32(v - s * s) * inverse)

    return root
