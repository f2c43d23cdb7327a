"""Mean-field theory of random networks: how variance, gradients and correlations change from layer to layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparsight.measure.criticality.quadrature import (
    _W,
    _X,
    LARGEST_Q,
    SCAN,
    Activation,
    Grid,
    grid,
    moments_at,
    sides,
    values,
)
from sparsight.numerics.checks import check_not_negative


def second_moments(activation: Activation | Grid, q: float, *, kinks: Sequence[float] = ()) -> tuple[float, float]:
    """(E[phi(sqrt(q) Z)^2], E[phi'(sqrt(q) Z)^2]) with Z ~ N(0, 1), for q >= 0.

    Piecewise Gauss-Legendre quadrature in float64, split at kinks (found, or declared by `kinks`): accurate to about
    1e-13. At q = 0, returns the limit, with the mean square of both slopes if there is a kink.
    """
    check_not_negative(q=q)
    found = grid(activation, kinks, q=q)
    return moments_at(found, q)[:2]


def variance_map(
    activation: Activation | Grid, q: float, sigma_w: float, sigma_b: float = 0.0, *, kinks: Sequence[float] = ()
) -> float:
    """The variance of the next layer's pre-activations: sigma_b^2 + sigma_w^2 E[phi(sqrt(q) Z)^2].

    Weights are N(0, sigma_w^2 / fan_in), biases N(0, sigma_b^2), widths infinite. Errors: a negative argument.
    Source: Hayou et al., ICLR 2021, section 2; Poole et al., NIPS 2016.
    """
    check_not_negative(sigma_w=sigma_w, sigma_b=sigma_b)
    return sigma_b**2 + sigma_w**2 * second_moments(activation, q, kinks=kinks)[0]


def variance_slope(activation: Activation | Grid, q: float, sigma_w: float, *, kinks: Sequence[float] = ()) -> float:
    """d variance_map / dq = sigma_w^2 E[phi phi' Z] / sqrt(q). A fixed point with a slope above 1 is unstable."""
    check_not_negative(q=q, sigma_w=sigma_w)
    found = grid(activation, kinks, q=q)
    return sigma_w**2 * moments_at(found, q)[2]


def fixed_point(
    activation: Activation | Grid,
    sigma_w: float,
    sigma_b: float = 0.0,
    *,
    start: float = 1.0,
    kinks: Sequence[float] = (),
) -> float:
    """The variance to which layers converge from `start`: the first q = variance_map(q), 0 or inf.

    `start` if every q is a fixed point (ReLU at sigma_w^2 = 2, sigma_b = 0). Searched in [1e-9, 1e4]; otherwise 0 or
    inf. May differ from the iteration if the variance map is not monotone (sin).
    """
    check_not_negative(sigma_w=sigma_w, sigma_b=sigma_b, start=start)
    found = grid(activation, kinks, q=start)

    def drift(q: float) -> float:
        return sigma_b**2 + sigma_w**2 * moments_at(found, q)[0] - q

    first = drift(start)
    if abs(first) <= 1e-13 * start:
        return start
    ahead = start < SCAN if first > 0 else start > SCAN
    turned = ahead & (torch.sign(sigma_b**2 + sigma_w**2 * found.scan[0] - SCAN) != math.copysign(1.0, first))
    where = torch.nonzero(turned).reshape(-1)
    if len(where):
        i = int(where[0 if first > 0 else -1])
        before = i - 1 if first > 0 else i + 1
        known = 0 <= before < len(SCAN) and bool(ahead[before])
        return root(drift, float(SCAN[before]) if known else start, float(SCAN[i]))
    if first > 0:
        return math.inf
    at_zero = sigma_b**2 + sigma_w**2 * sides(found.activation)[0] ** 2
    return at_zero  # 0, or so small that the map is constant


def chi(
    activation: Activation | Grid,
    sigma_w: float,
    sigma_b: float = 0.0,
    *,
    q: float | None = None,
    kinks: Sequence[float] = (),
) -> float:
    """chi = sigma_w^2 E[phi'(sqrt(q) Z)^2]: the factor on squared gradients per layer, and the slope f'(1) of the
    correlation map. Below 1 ordered, above 1 chaotic, 1 the edge of chaos.

    At variance `q`, by default the fixed point; at 1e4 if that is infinite.
    """
    found = grid(activation, kinks, q=1.0 if q is None else q)
    at = fixed_point(found, sigma_w, sigma_b) if q is None else q
    return sigma_w**2 * second_moments(found, min(at, LARGEST_Q) if q is None else at)[1]


def correlation_map(
    activation: Activation | Grid,
    c: float,
    sigma_w: float,
    sigma_b: float = 0.0,
    *,
    q: float | None = None,
    kinks: Sequence[float] = (),
) -> float:
    """f(c): the correlation of two inputs' pre-activations after one layer, both of variance q, by default the
    fixed point.

    f(c) = (sigma_b^2 + sigma_w^2 E[phi(sqrt(q) Z1) phi(sqrt(q) (c Z1 + sqrt(1 - c^2) Z2))]) / (sigma_b^2 + sigma_w^2
    E[phi^2]); the denominator is q at the fixed point. Both integrals are split at kinks. Raises: ValueError for c
    outside [-1, 1], or if the variance is 0 or infinite.
    """
    if not -1 <= c <= 1:
        raise ValueError(f"a correlation must be in [-1, 1], got {c!r}")
    found = grid(activation, kinks, q=1.0 if q is None else q)
    at = fixed_point(found, sigma_w, sigma_b) if q is None else q
    if not 0 < at < math.inf:
        raise ValueError(f"the variance must be in (0, inf), got {at!r}: give q")
    whole = sigma_b**2 + sigma_w**2 * second_moments(found, at)[0]
    return (sigma_b**2 + sigma_w**2 * _product(found, at, c)) / whole


def root(f: Callable[[float], float], a: float, b: float) -> float:
    """The root of f between a and b, where f has different signs, to the last bit or two: Brent's method.

    Returns the end where f is closer to 0 if rounding makes the signs equal.
    """
    from scipy.optimize import root_scalar

    at_a, at_b = f(a), f(b)
    if (at_a > 0) == (at_b > 0):
        return a if abs(at_a) <= abs(at_b) else b
    return root_scalar(f, bracket=(a, b), method="brentq", xtol=5e-324, maxiter=1000).root


def _product(found: Grid, q: float, c: float) -> float:
    """E[phi(U) phi(V)] of two normals of variance q and correlation c: over U, and over Z in V = c U + s Z."""
    phi, s, reach = found.activation, math.sqrt(max(q * (1 - c * c), 0.0)), 12 * math.sqrt(q)
    if s == 0:
        u, w = _rule((found.edges, -found.edges), reach)
        return float((w * _density(u, q) * values(phi, u)[0] * values(phi, math.copysign(1.0, c) * u)[0]).sum())
    usual = found.edges[(found.edges.abs() > math.sqrt(q) / 64) | (found.edges == 0)]
    around = torch.tensor([-8, -4, -2, -1, -0.5, 0, 0.5, 1, 2, 4, 8], dtype=torch.float64) * s
    turns = ((found.kinks[:, None] + around) / c).reshape(-1) if c else found.kinks  # of the integral over Z
    u, w = _rule((usual, found.inner, found.kinks, turns), reach)
    w = w * _density(u, q) * values(phi, u)[0]
    u, w = u[w.abs() > 1e-22 * w.abs().max()], w[w.abs() > 1e-22 * w.abs().max()]
    fixed = torch.tensor([-12, -8, -5, -3, -2, -1, 0, 1, 2, 3, 5, 8, 12], dtype=torch.float64)
    cuts = torch.cat([found.kinks, found.inner, usual[usual.abs() > s / 16]]).unique()
    parts = zip(u.split(128), w.split(128), strict=True)
    return math.fsum(float(weight @ _mean(phi, c * part, s, cuts, fixed)) for part, weight in parts)


def _mean(phi: Activation, mean: Tensor, s: float, cuts: Tensor, fixed: Tensor) -> Tensor:
    """E[phi(mean + s Z)] for each mean, the integral cut at `fixed` values of Z and where phi has `cuts`."""
    moved = ((cuts - mean[:, None]) / s).clamp(-12, 12)
    ends = torch.cat([fixed.expand(len(mean), -1), moved], 1).sort(1).values
    half, middle = (ends[:, 1:] - ends[:, :-1]) / 2, (ends[:, 1:] + ends[:, :-1]) / 2
    live = half > 0
    half, z = half[live], middle[live][:, None] + half[live][:, None] * _X
    row = torch.nonzero(live)[:, 0]
    f = values(phi, (mean[row][:, None] + s * z).reshape(-1))[0].reshape(z.shape)
    sums = (f * _density(z, 1.0)) @ _W * half
    return torch.zeros_like(mean).index_add_(0, row, sums)


def _rule(cuts: tuple[Tensor, ...], reach: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a composite rule over [-reach, reach] with these cuts."""
    ends = torch.tensor([-reach, reach], dtype=torch.float64)
    edges = torch.cat([ends, *(part[part.abs() < reach] for part in cuts)]).unique()
    half, middle = torch.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    return (middle + half * _X).reshape(-1), (half * _W).reshape(-1)


def _density(u: Tensor, q: float) -> Tensor:
    return torch.exp(-(u**2) / (2 * q)) / math.sqrt(2 * math.pi * q)
