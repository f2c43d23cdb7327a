"""The edge of chaos of an activation: the weight scale at which gradients neither vanish nor explode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from sparsight.measure.criticality.meanfield import root
from sparsight.measure.criticality.quadrature import SCAN, Activation, Grid, grid, moments, moments_at, sides
from sparsight.numerics.checks import check_not_negative


class NoEdgeOfChaos(ValueError):
    """The activation has no edge of chaos at this sigma_b."""


@dataclass(frozen=True)
class EdgeOfChaos:
    """A point of the edge of chaos: variance `q` is a fixed point at (`sigma_w`, `sigma_b`), and chi there is 1.

    `slope` is the slope of the variance map at q; `stable`: layers that start near q converge to it (slope below 1).
    `solutions` holds all points with this sigma_b, by increasing q.
    """

    sigma_w: float
    sigma_b: float
    q: float
    chi: float
    slope: float
    stable: bool
    solutions: tuple[EdgeOfChaos, ...] = ()


def edge_of_chaos(activation: Activation | Grid, sigma_b: float = 0.0, *, kinks: Sequence[float] = ()) -> EdgeOfChaos:
    """Where chi = 1: q = sigma_b^2 + E[phi^2] / E[phi'^2] at variance q, and sigma_w = E[phi'^2]^(-1/2).

    `activation` is an elementwise torch function or module; phi' comes from autograd. Integrals are split at kinks,
    which are found automatically; declare others in `kinks`. Roots are searched in [1e-9, 1e4]. At sigma_b = 0 an
    activation with phi(0) = 0 also has the limit q = 0; if every q is a root (ReLU: sigma_w^2 = 2), q is 1.

    Returns the smallest stable q, otherwise the smallest, with `stable` False: layers that start elsewhere drift away
    from it, see `smallest_stable_sigma_b`. A convolution counts as a linear layer with fan_in = channels / groups x
    kernel size.

    Raises: `NoEdgeOfChaos`; ValueError for sigma_b < 0 or an activation that cannot be integrated.
    Source: Hayou et al., ICLR 2021, definition of the edge of chaos; the authors' solver is a Monte Carlo iteration.
    """
    check_not_negative(sigma_b=sigma_b)
    found = grid(activation, kinks)
    roots = _roots(found, sigma_b)
    if not roots:
        like = " (ReLU and similar activations have one only at sigma_b = 0)" if sigma_b else ""
        raise NoEdgeOfChaos(
            f"{called(found.activation)} has no edge of chaos at sigma_b = {sigma_b:g}: no variance q up to "
            f"{float(SCAN[-1]):g} is a fixed point with chi = 1{like}"
        )
    solutions = tuple(roots)
    best = next((one for one in solutions if one.stable), solutions[0])
    return EdgeOfChaos(best.sigma_w, best.sigma_b, best.q, best.chi, best.slope, best.stable, solutions)


def smallest_stable_sigma_b(activation: Activation | Grid, *, kinks: Sequence[float] = ()) -> float:
    """The smallest sigma_b at which the edge of chaos has a stable variance; 0 if it has one without biases.

    Along the edge, sigma_b^2 = q - E[phi^2] / E[phi'^2] and the slope of the variance map is E[phi phi' Z] /
    (sqrt(q) E[phi'^2]). SiLU: 0.745, GELU: 0.416, Mish: 0.307. Raises: `NoEdgeOfChaos` if no point is stable.
    """
    found = grid(activation, kinks)
    if any(one.stable for one in _roots(found, 0.0)):
        return 0.0

    def of(q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        phi_sq, dphi_sq, rise = moments(found, q)
        return q - phi_sq / dphi_sq, rise / dphi_sq - 1

    square, excess = of(SCAN)
    best = math.inf
    here = (excess < -1e-12) & (square > -1e-15)  # excludes slopes of 1 despite rounding
    for i in torch.nonzero(here).reshape(-1).tolist():
        if i and not here[i - 1] and excess[i - 1] >= 0:
            q = root(lambda q: float(of(torch.tensor([q], dtype=torch.float64))[1]), *SCAN[i - 1 : i + 1].tolist())
            best = min(best, float(of(torch.tensor([q], dtype=torch.float64))[0]))
        best = min(best, float(square[i]) if i else 0.0)
    if best == math.inf:
        raise NoEdgeOfChaos(f"no point of the edge of chaos of {called(found.activation)} has a stable variance")
    return math.sqrt(max(best, 0.0))


def called(activation: Activation) -> str:
    """The name of an activation, for messages."""
    return (getattr(activation, "__name__", None) or type(activation).__name__).strip("_")


def _roots(found: Grid, sigma_b: float) -> list[EdgeOfChaos]:
    phi_sq, dphi_sq, _ = found.scan
    excess = sigma_b * sigma_b + phi_sq / dphi_sq - SCAN
    if sigma_b == 0 and bool((excess.abs() <= 1e-12 * SCAN).all()):
        return [_at(found, 0.0, 1.0, marginal=True)]
    roots = []
    start, down, up = sides(found.activation)
    if sigma_b == 0 and start == 0 and down**2 + up**2 > 1e-20:
        roots.append(_at(found, 0.0, 0.0, marginal=_settles(found, 2 / (down**2 + up**2))))

    def h(q: float) -> float:
        phi_sq, dphi_sq, _ = moments_at(found, q)
        return sigma_b * sigma_b + phi_sq / dphi_sq - q

    clear = torch.nonzero(torch.isfinite(excess) & (excess.abs() > 1e-11 * SCAN)).reshape(-1).tolist()
    for i, j in pairwise(clear):
        if (excess[i] > 0) != (excess[j] > 0):
            roots.append(_at(found, sigma_b, root(h, float(SCAN[i]), float(SCAN[j]))))
    return roots


def _settles(found: Grid, sigma_w_sq: float) -> bool:
    """Whether a small variance shrinks at sigma_b = 0, where the slope of the variance map at 0 is 1."""
    drift = sigma_w_sq * found.scan[0] / SCAN - 1
    clear = torch.nonzero(drift.abs() > 1e-9).reshape(-1)
    return not len(clear) or bool(drift[clear[0]] < 0)


def _at(found: Grid, sigma_b: float, q: float, *, marginal: bool | None = None) -> EdgeOfChaos:
    """The point of the edge at variance q; `marginal` says whether it is stable at a slope of exactly 1."""
    _, dphi_sq, rise = moments_at(found, q)
    sigma_w = dphi_sq**-0.5
    slope = rise * sigma_w**2
    return EdgeOfChaos(sigma_w, sigma_b, q, sigma_w**2 * dphi_sq, slope, slope < 1 if marginal is None else marginal)
