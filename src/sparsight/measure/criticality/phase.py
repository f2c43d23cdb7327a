"""The phase of a network's initial weights, and initial weights at the edge of chaos."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from sparsight.measure.criticality.activations import activation_of
from sparsight.measure.criticality.edge import (
    EdgeOfChaos,
    NoEdgeOfChaos,
    called,
    edge_of_chaos,
    smallest_stable_sigma_b,
)
from sparsight.measure.criticality.layers import fan_in, is_residual, left_out, weighted_layers
from sparsight.measure.criticality.meanfield import chi, fixed_point
from sparsight.measure.criticality.quadrature import Activation, Grid, grid
from sparsight.model.masks import check
from sparsight.numerics.checks import check_not_negative
from sparsight.numerics.exact import exact
from sparsight.types import Masks

Phase = Literal["ordered", "edge", "chaotic"]

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm)


@dataclass(frozen=True)
class LayerPhase:
    """The phase of one layer, with weights as N(0, sigma_w^2 / fan_in) and biases as N(0, sigma_b^2)."""

    name: str  # of the weight
    fan_in: int
    sigma_w: float
    sigma_b: float
    q: float  # the variance that such layers converge to
    chi: float  # at q
    phase: Phase


@dataclass(frozen=True)
class NetworkPhase:
    """The phase of a network.

    `chi` is the geometric mean over all layers except the first. `depth`, 6 / |log chi|, is the number of layers that
    a signal passes. Norm layers (`normalised`) set the variances themselves; with shortcuts (`residual`) signals pass
    even at chi < 1.
    """

    layers: tuple[LayerPhase, ...]
    chi: float
    phase: Phase
    depth: float
    normalised: bool
    residual: bool = False


def phase_of(
    model: nn.Module,
    activation: Activation | Grid | None = None,
    *,
    masks: Masks | None = None,
    tolerance: float = 0.05,
    kinks: Sequence[float] = (),
) -> NetworkPhase:
    """The phase of a network's current weights: ordered (chi < 1), chaotic (chi > 1), or at the edge of chaos.

    For each linear and convolution layer: sigma_w^2 = fan_in mean(W^2) with pruned weights as 0, sigma_b^2 =
    mean(b^2), and chi at their fixed point. "edge" is |log chi| <= `tolerance`. By default, `activation` is found in
    the model's forward. Omits transposed convolutions with a warning. Raises: ValueError without such a layer, for an
    unknown activation, or for weights or biases that are not finite.
    """
    if masks is not None:
        check(model, masks)
    layers = _layers(model)
    if missing := left_out(model):
        warnings.warn(f"transposed convolutions are not covered: {', '.join(missing)}", stacklevel=2)
    found = grid(activation_of(model) if activation is None else activation, kinks)
    rows = tuple(_layer(name, layer, found, masks or {}, tolerance) for name, layer in layers.items())
    logs = [math.log(row.chi) if row.chi > 0 else -math.inf for row in rows[1:] or rows]
    mean = sum(logs) / len(logs)
    normalised = any(isinstance(module, NORMS) for module in model.modules())
    depth = 6 / abs(mean) if mean else math.inf
    residual = is_residual(model)
    return NetworkPhase(rows, math.exp(mean), _phase(math.exp(mean), tolerance), depth, normalised, residual)


def _layers(model: nn.Module) -> dict[str, nn.Linear | nn.modules.conv._ConvNd]:
    layers = weighted_layers(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no linear or convolution layer")
    return layers


def _layer(
    name: str, layer: nn.Linear | nn.modules.conv._ConvNd, found: Grid, masks: Masks, tolerance: float
) -> LayerPhase:
    weight = exact(layer.weight.detach())
    if name in masks:
        weight = weight.masked_fill(~masks[name].to(weight.device), 0)
    if not torch.isfinite(weight).all():
        raise ValueError(f"{name!r} has weights that are not finite: its phase is undefined")
    sigma_w = math.sqrt(fan_in(layer) * float((weight**2).mean()))
    sigma_b = 0.0 if layer.bias is None else math.sqrt(float((exact(layer.bias.detach()) ** 2).mean()))
    if not math.isfinite(sigma_b):
        raise ValueError(f"the bias of {name!r} has values that are not finite: its phase is undefined")
    q = fixed_point(found, sigma_w, sigma_b)
    at = chi(found, sigma_w, q=min(q, 1e4))
    return LayerPhase(name, fan_in(layer), sigma_w, sigma_b, q, at, _phase(at, tolerance))


def _phase(at: float, tolerance: float) -> Phase:
    if at > 0 and abs(math.log(at)) <= tolerance:
        return "edge"
    return "ordered" if at < 1 else "chaotic"


def initialise_(
    model: nn.Module, sigma_w: float, sigma_b: float = 0.0, *, seed: int = 0, generator: Generator | None = None
) -> nn.Module:
    """Draw every linear and convolution weight from N(0, sigma_w^2 / fan_in), and their biases from N(0, sigma_b^2).

    fan_in = channels / groups x kernel size. Norms get weight 1, bias 0 and new statistics; all else is unchanged.
    Drawn on the CPU in float32, layer by layer, from `generator` or a new one with `seed`: the same on all devices,
    without changing the global random state. Returns the changed model. Keeps transposed convolutions, with a
    warning. Raises: ValueError for a negative sigma, without such a layer, or for computed weights (weight norm).
    """
    check_not_negative(sigma_w=sigma_w, sigma_b=sigma_b)
    layers = _layers(model)
    for name, layer in layers.items():
        if not isinstance(layer.weight, nn.Parameter):
            raise ValueError(
                f"cannot draw {name!r}, which is computed from other parameters (such as weight norm): first call "
                "torch.nn.utils.parametrize.remove_parametrizations"
            )
    if missing := left_out(model):
        warnings.warn(f"transposed convolutions are not initialised: {', '.join(missing)}", stacklevel=2)
    source = Generator().manual_seed(seed) if generator is None else generator
    with torch.no_grad():
        for layer in layers.values():
            _draw_(layer.weight, sigma_w / math.sqrt(fan_in(layer)), source)
            if layer.bias is not None:
                _draw_(layer.bias, sigma_b, source)
        for module in model.modules():
            if isinstance(module, _NormBase):
                module.reset_running_stats()
            for name, value in (("weight", 1.0), ("bias", 0.0)) if isinstance(module, NORMS) else ():
                parameter = getattr(module, name, None)
                if isinstance(parameter, Tensor):
                    parameter.fill_(value)
    return model


def _draw_(tensor: Tensor, sigma: float, generator: Generator) -> None:
    tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float32) * sigma)


@dataclass(frozen=True)
class CriticalStart:
    """Initial weights at the edge of chaos, as a function of a model, which it changes and returns.

    By default, the activation is found in the model's forward. For activations with an edge only at sigma_b = 0 (ReLU),
    uses the sigma_w of that edge, where chi = 1 too. Warns if the edge has no stable variance (GELU, SiLU and Mish at
    small sigma_b), because signals drift away from it.
    """

    activation: Activation | None = None
    sigma_b: float = 0.0
    seed: int = 0

    def __call__(self, model: nn.Module) -> nn.Module:
        sigma_w = critical_sigma_w(activation_of(model) if self.activation is None else self.activation, self.sigma_b)
        return initialise_(model, sigma_w, self.sigma_b, seed=self.seed)


def critical_sigma_w(activation: Activation | Grid, sigma_b: float) -> float:
    """sigma_w of the edge of chaos at sigma_b.

    Without an edge, the sigma_w where chi = 1 if chi does not depend on the variance (ReLU and other activations that
    are linear on both sides of 0). Warns if no variance is stable. Raises: `NoEdgeOfChaos`.
    """
    found = grid(activation)
    try:
        edge = edge_of_chaos(found, sigma_b)
        if not edge.stable:
            warnings.warn(_unstable(found, edge), stacklevel=3)
        return edge.sigma_w
    except NoEdgeOfChaos:
        small, large = chi(found, 1.0, q=1e-3), chi(found, 1.0, q=1e3)
        if small > 0 and abs(small - large) <= 1e-12 * small:
            return small**-0.5
        raise


def _unstable(found: Grid, edge: EdgeOfChaos) -> str:
    """A warning about an unstable edge, with a stable sigma_b."""
    try:
        other = f"take sigma_b >= {smallest_stable_sigma_b(found) + 5e-5:.4f} (see smallest_stable_sigma_b)"
    except NoEdgeOfChaos:
        other = "no sigma_b has a stable one; take another activation"
    return (
        f"the edge of chaos of {called(found.activation)} at sigma_b = {edge.sigma_b:g} (sigma_w = {edge.sigma_w:.4g}) "
        f"is unstable: chi is {edge.chi:.4g} at the variance q = {edge.q:.4g}, but layers leave that variance: {other}"
    )
