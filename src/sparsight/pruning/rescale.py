"""The rescaling trick: restore the variance of each layer or neuron after pruning. Also in a run, by data."""

from __future__ import annotations

import copy
import fnmatch
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparsight.measure.criticality.activations import activation_of, traced, verb, words
from sparsight.measure.criticality.layers import fan_in, is_residual, left_out, weighted_layers
from sparsight.measure.criticality.phase import NORMS, CriticalStart, critical_sigma_w
from sparsight.measure.criticality.quadrature import Activation
from sparsight.model.batch import predict
from sparsight.model.functional import evaluating, tapped
from sparsight.model.hold import apply_
from sparsight.model.masks import all_kept, check
from sparsight.model.weights import layout_of, layouts
from sparsight.numerics.checks import check_known, is_number
from sparsight.numerics.exact import exact
from sparsight.pruning.reinitialise import Reinitialise
from sparsight.pruning.restart import carry_on, reweighted
from sparsight.types import Allocation, Allocator, Batch, Masks, Scored, Scorer, Scores, StateDict

__all__ = ["By", "Fresh", "FromStart", "Rescale", "Rescaled", "ScoredAt", "unsuited"]

By = Literal["neuron", "layer", "offset", "data"]
_NORMALISING = words(
    "batch_norm layer_norm group_norm instance_norm rms_norm local_response_norm normalize rsqrt norm "
    "vector_norm std var var_mean std_mean"
)


@dataclass(frozen=True)
class Rescale:
    """Restart from the rewind point, masked, and multiply the kept weights to bring chi back to 1: W <- rho W.

    alpha_i = sum_j W_ij^2 delta_ij over the fan-in of output i. By "neuron", rho_i = gain / sqrt(alpha_i); by "layer",
    with the mean of alpha over all outputs; by "offset", each kernel position is scaled to gain^2 / positions. rho = 1
    if alpha = 0. Biases do not change.

    By "data": one factor per layer, in order of execution, s = sqrt(mean((W_dense x_dense)^2) / mean((rho W delta
    x)^2)), measured on `batches` with all earlier layers rescaled. Use it for masks from saliency scores (SNIP, GraSP):
    these keep the weights of active units, and E[W^2 delta phi^2] is not E[W^2 delta] E[phi^2]. Rescaling by neuron
    then makes a deep ReLU network explode (measured: squared gradients by 10^32 over 100 layers at density 0.1).

    `gain`: "eoc" is sigma_w of the edge of chaos at `sigma_b`, for `activation` or the model's own; "dense" is each
    layer's sqrt(fan_in mean(W^2)) before pruning; or a number (1.0 is the paper's formula, right only if sigma_w is 1).
    Not used by "data". `exclude`: shell-style names of tensors to skip. `start` draws the dense weights first.

    Warns and does nothing for a network with norms, which undo any scale, or a residual network, which is at the edge
    of chaos with any weights. Warns if the forward cannot be traced, since it would miss these, and about weights that
    it skips: transposed convolutions, and others outside linear and convolution layers.

    Source: Hayou et al., ICLR 2021, section 3.2, with corrected gain.
    """

    by: By = "neuron"
    gain: Literal["eoc", "dense"] | float = "eoc"
    activation: Activation | None = None
    sigma_b: float = 0.0
    exclude: tuple[str, ...] = ()
    start: Callable[[nn.Module], nn.Module] | None = None
    batches: Sequence[Batch] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        check_known(By, by=self.by)
        if self.gain not in ("eoc", "dense") and not (is_number(self.gain) and 0 < self.gain < math.inf):
            raise ValueError(f"gain must be 'eoc', 'dense' or a number greater than 0, got {self.gain!r}")
        if isinstance(self.exclude, str):
            raise TypeError(f"exclude must be a tuple of patterns, such as ({self.exclude!r},), got {self.exclude!r}")

    def __call__(self, model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module:
        """The model at the rewind point, masked and rescaled. By "data" without batches, uses the multipliers of a
        `Rescaled` allocator."""
        model.load_state_dict(rewind_point)
        if self.start is not None:
            self.start(model)
        if self.by == "data" and not self.batches and allocation.multipliers is None:
            raise ValueError("rescaling by data needs batches, or the multipliers of a `Rescaled` allocator")
        if allocation.multipliers:
            reweighted(model, allocation.multipliers)
        if self.by != "data" or self.batches:
            reweighted(model, self.factors(model, allocation.masks, self.batches))
        return carry_on(model, rewind_point, replace(allocation, multipliers=None))

    def factors(self, model: nn.Module, masks: Masks, batches: Sequence[Batch] = ()) -> dict[str, Tensor]:
        """rho by tensor, broadcastable to it, for a model with the dense weights. Does not change the model."""
        check(model, masks)
        if why := unsuited(model):
            warnings.warn(f"not rescaled: {why}", stacklevel=2)
            return {}
        layers = weighted_layers(model)
        _blind_spots(model, masks, layers)
        unmatched = next((pattern for pattern in self.exclude if not fnmatch.filter(layers, pattern)), None)
        if unmatched is not None:
            raise ValueError(f"{unmatched!r} in exclude matches no layer: the layers are {', '.join(layers)}")
        chosen = {
            name: layer
            for name, layer in layers.items()
            if name in masks and not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.exclude)
        }
        if self.by == "data":
            return _by_data(model, masks, batches, tuple(chosen))
        gain = self.gain
        if gain == "eoc":
            activation = activation_of(model) if self.activation is None else self.activation
            gain = critical_sigma_w(activation, self.sigma_b)
        found = {}
        for name, layer in chosen.items():
            weight = exact(layer.weight.detach())
            kept = layout_of(layer)[1].rows(weight.masked_fill(~masks[name].to(weight.device), 0))
            own = math.sqrt(fan_in(layer) * float((weight**2).mean())) if gain == "dense" else float(gain)
            rho = _analytic(kept, own, self.by).to(layer.weight.dtype).to(layer.weight.device)
            found[name] = rho if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)) else rho.t()
        return found


def unsuited(model: nn.Module) -> str | None:
    """Why rescaling does not apply to a model, or None."""
    norm = next((name for name, module in model.named_modules() if isinstance(module, NORMS)), None)
    if norm is not None:
        return f"{norm!r} normalises, which undoes any scale of the weights before it"
    graph = traced(model)
    call = None if graph is None else next((n for n in map(verb, graph.graph.nodes) if n in _NORMALISING), None)
    if call is not None:
        return f"{call} in the forward normalises, which undoes any scale of the weights before it"
    if is_residual(model):
        return "the network is residual, and at the edge of chaos with any weights"
    return None


def _blind_spots(model: nn.Module, masks: Masks, layers: Mapping[str, nn.Module]) -> None:
    """Warn if `unsuited` cannot trace the forward, and about layers that are not rescaled."""
    if traced(model) is None:
        warnings.warn(
            f"the forward of {type(model).__name__} cannot be traced: rescaling is wrong if it has norms or shortcuts",
            stacklevel=3,
        )
    if missing := left_out(model):
        warnings.warn(f"not rescaled, because they are transposed convolutions: {', '.join(missing)}", stacklevel=3)
    if others := [name for name in masks if name not in {*layers, *missing}]:
        warnings.warn(f"not rescaled, because not in linear or convolution layers: {', '.join(others)}", stacklevel=3)


def _analytic(kept: Tensor, gain: float, by: By) -> Tensor:
    """rho for masked weights."""
    ones = (1,) * (kept.dim() - 1)
    square = kept**2
    if by == "offset" and kept.dim() > 2:
        positions = math.prod(kept.shape[2:])
        alpha = square.sum(1, keepdim=True) * positions
    else:
        alpha = square.reshape(len(kept), -1).sum(1).reshape(-1, *ones)
        if by == "layer":
            alpha = alpha.mean().reshape(1, *ones)
    return torch.where(alpha > 0, gain / torch.where(alpha > 0, alpha, 1.0).sqrt(), 1.0)


def _by_data(model: nn.Module, masks: Masks, batches: Sequence[Batch], names: tuple[str, ...]) -> dict[str, Tensor]:
    """One factor per layer, in order of execution, with one pass per layer."""
    if not batches:
        raise ValueError("rescaling by data needs at least one batch (x, y)")
    work = copy.deepcopy(model)
    layers = {name: layer for name, layer in weighted_layers(work).items() if name in names}
    wanted = _mean_squares(work, batches, layers)
    apply_(work, masks)
    found, silent = {}, []
    for name, before in wanted.items():
        after = _mean_squares(work, batches, {name: layers[name]})[name]
        if before > 0 and after > 0:
            factor = math.sqrt(before / after)
            with torch.no_grad():
                layers[name].weight.mul_(factor)
        else:
            factor = 1.0
            silent.append(name)
        found[name] = torch.tensor(factor, dtype=layers[name].weight.dtype, device=layers[name].weight.device)
    if silent:
        warnings.warn(f"not rescaled, because no signal gets through: {', '.join(silent)}", stacklevel=3)
    return found


def _mean_squares(model: nn.Module, batches: Sequence[Batch], layers: Mapping[str, nn.Module]) -> dict[str, float]:
    """mean((W x)^2), without the bias, of the given layers in order of execution."""
    sums: dict[str, list[float]] = {}

    def see(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        bias = getattr(module, "bias", None)
        out = exact(output)
        if isinstance(bias, Tensor):
            axis = 1 if isinstance(module, nn.modules.conv._ConvNd) else -1
            shape = [1] * out.dim()
            shape[axis] = -1
            out = out - exact(bias.detach()).reshape(shape)
        total = sums.setdefault(name, [0.0, 0.0])
        total[0] += float((out**2).sum())
        total[1] += out.numel()

    with torch.no_grad(), evaluating(model), tapped(layers, see):
        for batch in batches:
            predict(model, batch)
    return {name: total / count for name, (total, count) in sums.items()}


# -- in a run: factors are measured while scoring, because a restart has no data -----------------------------------


@dataclass(frozen=True)
class ScoredAt:
    """Scores of the network at its critical start (None: as it is), on which `Rescaled` can calibrate."""

    score: Scorer
    start: CriticalStart | None = None

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch]) -> Scored:
        at = model
        if self.start is not None:
            at = copy.deepcopy(model)
            self.start(at)
        return Scored(self.score(at, masks, batches), model=at, batches=batches, layouts=layouts(at, masks))


@dataclass(frozen=True)
class Rescaled(Allocator):
    """An allocator's plan with the factors of `rescale` as multipliers, measured on the scorer's batches.

    The scores must come from `ScoredAt`, for unpruned weights.
    """

    allocator: Allocator
    rescale: Rescale

    @property
    def monotone(self) -> bool:
        return self.allocator.monotone

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        if not isinstance(scores, Scored) or scores.model is None:
            raise TypeError(f"Rescaled needs scores from ScoredAt, got {scores!r:.60}")
        plan = self.allocator.plan(scores, masks)
        factors = self.rescale.factors(scores.model, plan.masks, scores.batches)
        before = plan.multipliers or {}
        return replace(plan, multipliers={**before, **{n: before.get(n, 1) * factor for n, factor in factors.items()}})


@dataclass(frozen=True)
class Fresh:
    """Draws fresh weights with each module's `reset_parameters`: a start for `Rescale`."""

    seed: int = 0

    def __call__(self, model: nn.Module) -> nn.Module:
        return Reinitialise(self.seed)(model, {}, Allocation(all_kept(model)))


@dataclass(frozen=True)
class FromStart:
    """Restart from the rewind point, with weights, biases and norms drawn by `start`."""

    start: CriticalStart

    def __call__(self, model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module:
        model.load_state_dict(rewind_point)
        return carry_on(self.start(model), rewind_point, allocation)
