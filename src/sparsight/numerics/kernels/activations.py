"""Smooth activations of a float32, without branches: loops over them compile to vectors."""

from __future__ import annotations

import numpy as np

from sparsight.numerics.kernels.jit import fused

_F = np.float32
_LN2, _LN2_REST = _F(0.693145751953125), _F(1.42860682030941723e-06)


@fused
def exp(x):
    """e^x to 2 units in the last place: 2^k times a polynomial on [-ln 2 / 2, ln 2 / 2]; NaN stays."""
    x = _F(-87) if x < _F(-87) else x
    x = _F(88) if x > _F(88) else x
    k = _F(np.rint(x * _F(1.4426950408889634)))
    r = x - k * _LN2 - k * _LN2_REST
    p = ((_F(1 / 5040) * r + _F(1 / 720)) * r + _F(1 / 120)) * r + _F(1 / 24)
    p = (((p * r + _F(1 / 6)) * r + _F(0.5)) * r + _F(1)) * r + _F(1)
    power = np.int32(k) if k == k else np.int32(0)  # a NaN has no integer
    return _F(p * np.int32((power + np.int32(127)) << np.int32(23)).view(np.float32))


@fused
def erf(x):
    """Abramowitz and Stegun 7.1.26, 1.5e-7 at the worst."""
    size = abs(x)
    t = _F(1) / (size * _F(0.3275911) + _F(1))
    p = (_F(1.061405429) * t + _F(-1.453152027)) * t + _F(1.421413741)
    p = ((p * t + _F(-0.284496736)) * t + _F(0.254829592)) * t
    value = _F(1) - p * exp(-(size * size))
    return value if x >= _F(0) else -value


@fused
def silu(x):
    return x / (_F(1) + exp(-x))


@fused
def gelu(x):
    return _F(0.5) * x * (_F(1) + erf(x * _F(0.5**0.5)))


@fused
def gelu_tanh(x):
    inner = x * (x * x * _F(0.044715) + _F(1))
    return x / (_F(1) + exp(inner * _F(-2 * 0.7978845608028654)))
