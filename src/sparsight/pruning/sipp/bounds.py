"""SiPP's error bounds: the draws needed for an error, the error of a number of draws, and the calibration points.

A group is the positive or the negative weights of one neuron, with sensitivities s, their sum S, and m of them kept:

    L       = ln(8 (P + 1) kappa / delta)            P patches per point, kappa weights per input channel of a filter
    alpha   = 2 C L S
    rand(m) = (u + sqrt(u^2 + 6 u)) / 2              u = alpha / (3 m), "reference": as in the published code
            = v + sqrt(v^2 + 6 v)                    v = C L S / (3 m), "bernstein": as the inequality gives
    det(m)  = C x (sum of the sensitivities that are not kept)

"bernstein" is twice "reference" at half the alpha, so one closed form serves both.
Source: Baykal et al., "SiPPing Neural Networks" (arXiv 1910.05422), and the derivation on docs/methods/sipp.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from sparsight.numerics.checks import check_known, check_positive, is_number

Bound = Literal["reference", "bernstein"]

NOTHING = 2.0**-23
"""Sums of sensitivities and probabilities count as zero up to this value (the published threshold)."""


def calibration_size(
    outputs: Sequence[int], *, delta: float = 1e-16, constant: float = 3.0, available: int | None = None
) -> int:
    """The number of calibration points: min(ceil(C ln(8 eta eta* / delta)), ceil(V / 2)), at least 1.

    `outputs` are the numbers of each prunable layer's outputs for one input (F H W for a convolution, F for a linear
    layer), eta is their sum and eta* the largest. `available` is V, the number of samples; None: no limit. A delta of 1
    or more is not a probability, but the published sweep uses up to 10.

    Raises: ValueError without outputs, for delta <= 0, or for C below 1. Source: the published code, section 1.6 of the
    derivation.
    """
    if not outputs or min(outputs) < 1:
        raise ValueError(f"outputs must be at least 1 for each prunable layer, got {list(outputs)}")
    check_positive(delta=delta)
    check_constant(constant)
    size = math.ceil(constant * (math.log(8 * sum(outputs) * max(outputs)) - math.log(delta)))
    most = size if available is None else -(-available // 2)
    return max(1, min(size, most))


def most_points(delta: float, constant: float = 3.0) -> int:
    """An upper limit of `calibration_size` for any network with up to 10^9 outputs per input."""
    return calibration_size([10**9], delta=delta, constant=constant)


def calibration_sweep(
    outputs: Sequence[int], deltas: Iterable[float], *, constant: float = 3.0, available: int | None = None
) -> dict[float, int]:
    """`calibration_size` for every delta, in the given order."""
    return {d: calibration_size(outputs, delta=d, constant=constant, available=available) for d in deltas}


def log_term(patches: Any, kernel: Any, delta: float) -> Any:
    """L = ln(8 (P + 1) kappa / delta); vectorised over patches and kernel."""
    return np.log(8.0 * (np.asarray(patches) + 1.0) * np.asarray(kernel)) - math.log(delta)


def alpha(sums: Any, logs: Any, constant: float = 3.0) -> Any:
    """alpha = 2 C L S, vectorised."""
    return 2.0 * constant * np.asarray(logs, np.float64) * np.asarray(sums, np.float64)


def eps_rand(alphas: Any, m: Any, bound: Bound = "reference") -> Any:
    """The relative error of m draws with replacement, reweighted; infinite for m = 0 < alpha, 0 for alpha = 0."""
    check_known(Bound, bound=bound)
    a, m = np.broadcast_arrays(np.asarray(alphas, np.float64), np.asarray(m, np.float64))
    a = a if bound == "reference" else a / 2.0
    u = np.divide(a, 3.0 * m, out=np.where(a > 0, np.inf, 0.0), where=m > 0)
    eps = 0.5 * (u + np.sqrt(u * u + 6.0 * u))
    return eps if bound == "reference" else 2.0 * eps


def draws_for(alphas: Any, eps: Any, bound: Bound = "reference") -> Any:
    """The inverse of `eps_rand`, not rounded: m = alpha (3 + 2 eps) / (6 eps^2) for the reference bound."""
    check_known(Bound, bound=bound)
    a, e = np.asarray(alphas, np.float64), np.asarray(eps, np.float64)
    return a * (3.0 + 2.0 * e) / (6.0 * e * e) if bound == "reference" else a * (3.0 + e) / (3.0 * e * e)


def slope(alphas: Any, eps: Any) -> Any:
    """-d eps / d m of the reference bound at eps: 3 eps^3 / (alpha (3 + eps))."""
    a, e = np.asarray(alphas, np.float64), np.asarray(eps, np.float64)
    return 3.0 * e**3 / (a * (3.0 + e))


def root(t: Any) -> Any:
    """The positive root of eps^3 = t (3 + eps), t > 0: Cardano if D >= 0, otherwise the cosine; then a Newton step."""
    t = np.asarray(t, np.float64)
    half, third = 1.5 * t, t / 3.0
    discriminant = half * half - third * third * third
    real = np.sqrt(np.maximum(discriminant, 0.0))
    eps = np.asarray(np.cbrt(half + real) + np.cbrt(half - real))
    three = discriminant < 0.0
    if three.any():
        angle = np.arccos(half[three] / (third[three] * np.sqrt(third[three]))) / 3.0
        eps[three] = 2.0 * np.sqrt(third[three]) * np.cos(angle)
    return eps - (eps * eps * eps - t * (3.0 + eps)) / (3.0 * eps * eps - t)


def check_constant(value: float) -> None:
    """Raise ValueError unless C is finite and at least 1: it assumes mass at M / C, with M the largest share."""
    if not (is_number(value) and 1 <= value < math.inf):
        raise ValueError(f"constant must be finite and at least 1, got {value!r}")


def check_delta(value: float) -> None:
    """Raise ValueError unless 0 < delta < 1."""
    if not (is_number(value) and 0 < value < 1):
        raise ValueError(f"delta must be greater than 0 and less than 1, got {value!r}")
