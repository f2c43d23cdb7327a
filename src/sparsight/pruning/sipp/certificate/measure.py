"""Measures errors on held-out inputs, and composes the bounds of a network that is a chain of layers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from sparsight.model.batch import batch_size, copied
from sparsight.model.functional import Pure, tapped
from sparsight.model.weights import layout_of
from sparsight.pruning.sipp.score import first_points, input_of
from sparsight.pruning.sipp.sensitivities import as_points, columns, patches_of
from sparsight.types import Batch

_SLACK = 1e-5  # tolerance for float32 rounding
_NUMBERS = 1 << 22  # numbers in one matrix of patches


@dataclass(eq=False)
class Measured:
    """The errors of a tensor's rows so far."""

    bound: Tensor  # of each row
    largest: Tensor
    total: Tensor
    patches: Tensor
    violations: Tensor


@dataclass(frozen=True, eq=False)
class Outputs:
    """The largest relative error of an output for every held-out input, and the bound composed from the layers.

    The error is |f_pruned - f| / |f|: 0 for equal values, infinite for NaN.
    """

    errors: Tensor
    bounds: Tensor


def measure(
    call: Pure,
    layers: Mapping[str, Sequence[nn.Module]],
    kept: Mapping[str, Tensor],
    bounds: Mapping[str, Tensor],
    batches: Sequence[Batch],
    forward: Callable[[nn.Module, Batch], Any],
) -> tuple[dict[str, Measured], Outputs]:
    """The errors of every row, on its layer's inputs in the unpruned network, and of the network's outputs.

    `kept` are the pruned (and reweighted) weights, `bounds` a bound per row. The composed bound of an input is
    e = Delta ((1 + eps)(1 + e_before) - 1), layer by layer, with Delta the largest sum |w||a| / |z + b| of the layer's
    outputs; it is infinite once a hidden layer's bound exceeds 1, because a sign may change.

    Raises: ValueError for an input of a layer, or an output, that is not finite.
    """
    found = {name: Measured(bound, *(torch.zeros_like(bound) for _ in range(4))) for name, bound in bounds.items()}
    users = {f"{name} {i}": layer for name, of in layers.items() for i, layer in enumerate(of)}
    carried = torch.zeros(0)

    def see(key: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal carried
        name = key.rpartition(" ")[0]
        x = as_points(layer, input_of(name, inputs)).to(bounds[name].dtype)
        if not torch.isfinite(x).all():
            raise ValueError(f"cannot measure {name!r}: an input of its layer is not finite")
        ratios = _layer(layer, x, call.params[name], kept[name], found[name])
        delta = ratios.reshape(len(carried), -1).amax(1) if len(carried) and len(ratios) % len(carried) == 0 else ratios
        before = carried if len(carried) == len(delta) else torch.full_like(delta, torch.inf)
        carried = _composed(delta, found[name].bound.max(), before)

    errors, composed = [], []
    for number, part in enumerate(first_points(batches, sum(batch_size(batch) for batch in batches))):
        carried = torch.zeros(batch_size(part), dtype=next(iter(bounds.values())).dtype)
        with tapped(users, see):
            right = _tensor(call.loss({}, forward, copied(part)))
        if not torch.isfinite(right).all():
            raise ValueError(f"cannot measure: the unpruned network's output for held-out batch {number} is not finite")
        gap = (
            (_tensor(call.loss(kept, forward, copied(part))) - right).abs().flatten(1).nan_to_num(torch.inf, torch.inf)
        )
        errors.append(torch.where(gap > 0, gap / right.abs().flatten(1), 0).amax(1))
        composed.append(carried)
    return found, Outputs(torch.cat(errors), torch.cat(composed))


def _layer(layer: nn.Module, x: Tensor, weight: Tensor, kept: Tensor, into: Measured) -> Tensor:
    """Add the errors of a layer's rows; returns the largest sum |w||a| / |z + b| of its outputs for each point."""
    bias = getattr(layer, "bias", None)
    layout = layout_of(layer)[1]
    weight, kept = layout.rows(weight), layout.rows(kept)
    here = patches_of(layer, x)
    ratios = []
    for some in x.split(max(1, _NUMBERS // max(1, weight[0].numel() * here))):
        a = columns(layer, some)
        groups = len(a)
        w, change = (t.to(x.dtype).reshape(groups, len(weight) // groups, -1) for t in (weight, weight - kept))
        mass = (w.abs() @ a.abs()).reshape(len(weight), -1)
        z = (w @ a).reshape(len(weight), -1) + (0 if bias is None else bias.detach().to(x.dtype)[:, None])
        there = mass > torch.finfo(mass.dtype).tiny
        error = torch.where(there, (change @ a).reshape(len(weight), -1).abs() / mass, 0)
        torch.maximum(into.largest, error.amax(1), out=into.largest)
        into.total += error.sum(1)
        into.patches += there.sum(1)
        into.violations += (error > into.bound[:, None] * (1 + _SLACK) + _SLACK).sum(1)
        ratio = torch.where(mass > 0, mass / z.abs(), 0)
        ratios.append(ratio.reshape(len(weight), len(some), here).amax((0, 2)))
    return torch.cat(ratios)


def _composed(delta: Tensor, bound: Tensor, before: Tensor) -> Tensor:
    """The relative error of a layer's outputs, if its inputs have the error `before`.

    Infinite for an error above 1, because zeros after ReLU may change; 0 for delta = 0 or unchanged inputs and weights.
    """
    grown = bound + before * (1 + bound)
    changed = torch.where((delta > 0) & (grown > 0), delta * grown, 0)
    return torch.where(before > 1, torch.inf, changed)


def _tensor(output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise TypeError(f"forward must return a tensor, got {type(output).__name__}")
    return output.detach()


# -- chains of layers ------------------------------------------------------------------------------------------------

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_RELU = (nn.ReLU, functional.relu, torch.relu, torch.relu_, "relu", "relu_")
_READ = ("size", "dim", "numel", "ndimension")
_FACTS = ("shape", "ndim", "dtype", "device")
_SAME = (nn.Flatten, nn.Identity, nn.Dropout, torch.flatten, functional.dropout, "flatten", "view", "reshape")
_LARGEST = (
    *(getattr(nn, f"MaxPool{n}d") for n in (1, 2, 3)),
    *(getattr(functional, f"max_pool{n}d") for n in (1, 2, 3)),
    *(torch.max_pool1d, torch.max_pool2d),
)
_MEAN = (
    *(getattr(nn, f"{kind}Pool{n}d") for kind in ("Avg", "AdaptiveAvg") for n in (1, 2, 3)),
    *(getattr(functional, f"{kind}_pool{n}d") for kind in ("avg", "adaptive_avg") for n in (1, 2)),
)


def why_no_chain(model: nn.Module, layers: Iterable[nn.Module]) -> str | None:
    """Why the network is not a chain of `layers`, each used once, with only ReLU and pooling between; None if it is.

    ReLU, maxima, and means of nonnegative numbers preserve relative errors of at most 1.
    """
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # the forward of a user's model may raise anything with symbolic tensors
        return f"its forward cannot be traced ({type(error).__name__})"
    own, nonnegative, seen, sizes = {id(layer) for layer in layers}, False, 0, _sizes(graph)
    for node in graph.nodes:
        if node.op in ("placeholder", "output", "get_attr") or node in sizes:
            continue
        target = model.get_submodule(str(node.target)) if node.op == "call_module" else node.target
        kind: Any = type(target) if isinstance(target, nn.Module) else target
        paths = [n for n in node.all_input_nodes if n.op != "get_attr" and n not in sizes]
        if len(paths) != 1 or sum(user not in sizes for user in node.users) > 1:
            return f"paths join or split at {node.name!r}"
        if kind in _LAYERS:
            if id(target) not in own:
                return f"{node.target!r} is not among the layers with bounds"
            own.discard(id(target))
            nonnegative, seen = False, seen + 1
        elif kind in _RELU:
            nonnegative = True
        elif kind in _MEAN and not nonnegative:
            return f"{node.name!r} averages numbers of both signs"
        elif kind not in (operator.getitem, *_SAME, *_LARGEST, *_MEAN):
            return f"{node.name!r} is neither a layer with bounds nor ReLU nor pooling"
    return None if seen and not own else "not every layer is part of it"


def _sizes(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that compute only sizes of tensors, which carry no values."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        called = node.op in ("call_method", "call_function")
        read = node.target in _READ or (node.target is getattr and node.args[1] in _FACTS)
        if called and (read or (node.all_input_nodes and all(n in found for n in node.all_input_nodes))):
            found.add(node)
    return found
