"""Values and slopes of an activation on a grid for Gaussian integrals, split at its kinks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]
"""An elementwise function or module, differentiable by autograd."""

LARGEST_Q = 1e4
"""Variance up to which the usual grid reaches (12 standard deviations beyond it)."""

SCAN = torch.logspace(-9, math.log10(LARGEST_Q), 261, dtype=torch.float64)
"""Variances between which roots are searched."""

NODES = 16
_X, _W = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(NODES))
_SPLITS = 64
_MOST = 40_000


@dataclass(frozen=True, eq=False)
class Grid:
    """phi and phi' at the nodes `u` of a composite Gauss-Legendre rule with weights `w`, in float64.

    `edges` are the ends of the panels; on each, phi and phi' are polynomials of degree 15 to 1e-12. `inner` are the
    edges added to the usual ones, `kinks` those where phi' or phi'' jumps.
    """

    activation: Activation
    edges: Tensor
    inner: Tensor
    kinks: Tensor
    u: Tensor
    w: Tensor
    phi: Tensor
    dphi: Tensor

    @cached_property
    def scan(self) -> tuple[Tensor, Tensor, Tensor]:
        """`moments` at the variances SCAN."""
        return moments(self, SCAN)


def grid(activation: Activation | Grid, kinks: Sequence[float] = (), *, q: float = 1.0) -> Grid:
    """The grid of an activation for variances from 1e-9 (or `q`) to `q`; a grid is returned unchanged.

    Finds kinks by halving panels until phi and phi' are smooth on each; `kinks` declares others. Copies a module, in
    float64 and eval mode. Raises: ValueError for an activation that is not elementwise, jumps, is NaN near 0, or needs
    more than 40,000 panels.
    """
    if isinstance(activation, Grid):
        return activation
    if isinstance(activation, nn.Module):
        activation = copy.deepcopy(activation).cpu().double().eval()
    if not callable(activation):
        raise TypeError(f"an activation must be a function or a module, got {type(activation).__name__}")
    _check_elementwise(activation)
    reach = math.ceil(math.log2(max(12 * math.sqrt(max(q, LARGEST_Q)), *(2 * abs(k) for k in kinks), 1.0)))
    near = min(-18, math.floor(math.log2(math.sqrt(q) / 8))) if q > 0 else -18
    ups = [f * 2.0**k for k in range(near, reach) for f in (1.0, 1.5)] + [2.0**reach]
    base = torch.tensor(sorted({0.0, *ups, *(-u for u in ups), *map(float, kinks)}), dtype=torch.float64)
    edges = _refined(activation, base)
    found = _kinks(activation, edges)
    declared = torch.tensor(list(map(float, kinks)), dtype=torch.float64)
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    u = (middle[:, None] + half[:, None] * _X).reshape(-1)
    phi, dphi = values(activation, u)
    w = (half[:, None] * _W).reshape(-1)
    return Grid(
        activation, edges, edges[~torch.isin(edges, base)], torch.cat([found, declared]).unique(), u, w, phi, dphi
    )


def values(activation: Activation, u: Tensor) -> tuple[Tensor, Tensor]:
    """phi(u) and phi'(u), the latter by autograd."""
    with torch.inference_mode(False), torch.enable_grad():
        x = u.detach().clone().requires_grad_()
        y = activation(x.clone())  # a copy, for in-place activations
        if not isinstance(y, Tensor) or y.shape != u.shape:
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"an activation must be elementwise, got {got} for a tensor of shape {tuple(u.shape)}")
        slope = torch.autograd.grad(y.sum(), x, allow_unused=True)[0] if y.requires_grad else None
    return y.detach().double(), torch.zeros_like(u) if slope is None else slope.double()


def moments(found: Grid, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E[phi^2], E[phi'^2] and dE[phi^2]/dq, for each q >= 0; infinite where a function overflows."""
    positive = torch.where(q > 0, q, 1.0)
    ordered, back = positive.sort()
    functions = torch.stack([found.phi**2, found.dphi**2, found.phi * found.dphi * found.u], 1)
    good = torch.isfinite(functions)
    safe, out = torch.where(good, functions, 0.0), []
    for part in ordered.split(16):
        near = found.u.abs() <= 13 * part[-1].sqrt()
        u, w, variance = found.u[near], found.w[near], part[:, None]
        density = torch.exp(-(u**2) / (2 * variance)) * (w / torch.sqrt(2 * math.pi * variance))
        lost = torch.stack([(density[:, ~fine] > 0).any(1) for fine in good[near].unbind(1)], 1)
        out.append(torch.where(lost, torch.inf, density @ safe[near]))
    phi_sq, dphi_sq, slope = torch.cat(out)[back.argsort()].unbind(1)
    slope = slope / positive
    if bool((q > 0).all()):
        return phi_sq, dphi_sq, slope
    at_zero, down, up = sides(found.activation)
    zero = q == 0
    return (
        torch.where(zero, at_zero**2, phi_sq),
        torch.where(zero, (down**2 + up**2) / 2, dphi_sq),
        torch.where(zero, (down**2 + up**2) / 2 if at_zero == 0 else math.nan, slope),
    )


def moments_at(found: Grid, q: float) -> tuple[float, float, float]:
    """`moments` at one variance."""
    phi_sq, dphi_sq, slope = moments(found, torch.tensor([q], dtype=torch.float64))
    return float(phi_sq), float(dphi_sq), float(slope)


def sides(activation: Activation) -> tuple[float, float, float]:
    """phi(0), phi'(0-) and phi'(0+)."""
    phi, dphi = values(activation, torch.tensor([-1e-30, 0.0, 1e-30], dtype=torch.float64))
    return float(phi[1]), float(dphi[0]), float(dphi[2])


# -- panels ----------------------------------------------------------------------------------------------------


def _check_elementwise(activation: Activation) -> None:
    u = torch.tensor([-1.3, -0.4, 0.0, 0.7, 2.1], dtype=torch.float64)
    phi, dphi = values(activation, u)
    alone = torch.cat([values(activation, x)[0] for x in u.split(1)])
    if not (torch.isfinite(phi).all() and torch.isfinite(dphi).all()):
        raise ValueError("the activation or its slope is not finite near 0")
    if not torch.allclose(phi, alone, rtol=1e-9, atol=1e-12):
        raise ValueError("an activation must be elementwise, but its values depend on other elements")


def _matrix() -> tuple[Tensor, Tensor]:
    """Points of [-1, 1] at which a panel is checked, and the matrix that interpolates there from its nodes."""
    x = _X.numpy()
    between = (x[1:] + x[:-1]) / 2
    at = np.concatenate([[-1 + 1e-9, (x[0] - 1) / 2], between, [(x[-1] + 1) / 2, 1 - 1e-9]])
    weights = np.array([1 / np.prod(x[i] - np.delete(x, i)) for i in range(NODES)])
    terms = weights / (at[:, None] - x)
    return torch.from_numpy(at), torch.from_numpy(terms / terms.sum(1, keepdims=True))


_CHECKS, _INTERPOLATE = _matrix()


def _refined(activation: Activation, edges: Tensor) -> Tensor:
    """The edges, with others added until phi and phi' are smooth on every panel or a panel is too small."""
    scale = [float(part.abs().max()) for part in values(activation, torch.linspace(-1, 1, 33, dtype=torch.float64))]
    left, right, all_edges = edges[:-1], edges[1:], [edges]
    for _ in range(_SPLITS):
        rough = _rough(activation, left, right, scale)
        rough &= right - left > 2.0**-50 * torch.maximum(left.abs(), right.abs())
        if not rough.any():
            return torch.cat(all_edges).unique()
        left, right = left[rough], right[rough]
        middle = (left + right) / 2
        all_edges.append(middle)
        left, right = torch.cat([left, middle]), torch.cat([middle, right])
        if sum(map(len, all_edges)) > _MOST:
            raise ValueError(f"the activation is too rough to integrate: it needs more than {_MOST} panels")
    return torch.cat(all_edges).unique()


def _rough(activation: Activation, left: Tensor, right: Tensor, scale: list[float]) -> Tensor:
    """Panels on which the polynomial through the nodes misses phi or phi' between them."""
    middle, half = (left + right)[:, None] / 2, (right - left)[:, None] / 2
    u = torch.cat([middle + half * _X, middle + half * _CHECKS], 1)
    far = torch.maximum(left.abs(), right.abs())
    rough = torch.zeros(len(left), dtype=torch.bool)
    for f, one in zip(values(activation, u.reshape(-1)), scale, strict=True):
        f = f.reshape(u.shape)
        nodes, checks = f[:, :NODES], f[:, NODES:]
        steepness = (nodes.amax(1) - nodes.amin(1)) / (right - left)
        noise = 1e-12 * nodes.abs().amax(1) + 1e-14 * one + 1e-14 * far * steepness
        missed = (nodes @ _INTERPOLATE.T - checks).abs().amax(1)
        rough |= torch.isfinite(f).all(1) & (missed > noise)
    return rough


def _kinks(activation: Activation, edges: Tensor) -> Tensor:
    """The edges where phi' or phi'' jumps. Raises: ValueError if phi itself jumps."""
    (phi, dphi), steps = values(activation, edges), []
    for size in (1e-6, 1e-7):
        step = size * edges.abs().clamp(min=1.0)
        (phi_up, up), (phi_down, down) = values(activation, edges + step), values(activation, edges - step)
        steps.append(torch.stack([phi_up - phi_down, up - down, (up - 2 * dphi + down) / step]).abs())
    one = float(torch.where(edges.abs() <= 1, dphi.abs(), 0).max())
    least = torch.stack([1e-5 * (1 + phi.abs()), torch.full_like(phi, 1e-9 * one), torch.full_like(phi, 1e-6 * one)])
    torn, bent, turned = (steps[1] > steps[0] / 2) & (steps[1] > least)  # jumps do not shrink with the step
    if torn.any():
        raise ValueError(f"the activation must be continuous, but jumps at {float(edges[torn][0]):g}")
    keep, width = [], torch.diff(edges)
    for i in torch.nonzero(bent | turned).reshape(-1).tolist():
        size = float(width[max(i - 1, 0) : i + 1].min())
        if keep and float(edges[i] - edges[keep[-1][0]]) < 3e-7 * max(1.0, abs(float(edges[i]))):
            keep[-1] = min(keep[-1], (i, size), key=lambda one: one[1])  # one kink: keep the smallest panel's edge
        else:
            keep.append((i, size))
    return edges[[i for i, _ in keep]]
