"""Removes units that pruning has left without inputs or outputs."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsight.checkpoint import load
from sparsight.deploy.compaction.operations import HANDLERS
from sparsight.deploy.compaction.walk import Layer, Value, Walk
from sparsight.deploy.comparing import copied, difference, drawn, first_line

_TOLERANCE = 1e-5  # of the largest output, or of 1
_RESHAPING = frozenset({"view", "reshape", "flatten", "squeeze", "unsqueeze"})


@dataclass(frozen=True)
class Left:
    """Units of a layer that are constant or without effect, and stay."""

    layer: str
    units: int
    why: str


@dataclass(frozen=True, eq=False)
class Compacted:
    """A smaller network, what remains of each tensor, and what could not be removed.

    Index i of a smaller tensor was index `kept[name][dimension][i]` of the old one. Unchanged tensors and dimensions
    are not in `kept`.
    """

    module: nn.Module
    kept: Mapping[str, Mapping[int, Tensor]]
    left: tuple[Left, ...]
    before: int  # parameters
    after: int
    difference: float  # largest between outputs of the two, over the largest output or 1


def compact(model: nn.Module, example_inputs: Tensor | tuple[Any, ...]) -> Compacted:
    """A copy of a pruned network without units that have no effect: same class, smaller tensors, same outputs.

    A unit (a neuron or channel) is removed if no nonzero weight leads from it to an output, or if it is constant and
    the next layers' biases can absorb it; constants are followed through activations, BatchNorm, pooling and
    flattening. A zero-padded convolution's bias can only absorb 0: one constant unit stays there and stands for all.
    Units that are summed, multiplied or grouped are removed together or not at all. Outputs keep their shape. Layers
    may get a bias. Unknown operations keep all channels that they read.

    Compares the copy with the model on the example and on random inputs.

    Args:
        model: a module in evaluation mode with zeros for pruned weights. It is not changed.
        example_inputs: a tensor, or a tuple of positional arguments; real inputs are best.

    Raises:
        ValueError: the model is in training mode, fails on the example, cannot be traced by `torch.export`, or its code
            fails or computes something else with fewer channels.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    program = _exported(copied(model), inputs)  # running a network may change its state
    failed = ""
    for refused in (frozenset(), _RESHAPING):
        made = _shrunk(model, _walked(model, program, refused))
        try:
            compared = (inputs, drawn(inputs), drawn(inputs, 3.0))
            far = difference(copied(model), copied(made.module), compared, _TOLERANCE, "its code with fewer channels")
        except ValueError as error:
            failed = failed or str(error)
            continue
        before, after = (sum(p.numel() for p in module.parameters()) for module in (model, made.module))
        return Compacted(made.module, made.kept, tuple(_left(made)), before, after, far)
    raise ValueError(f"this network cannot be compacted: {failed}")


def _exported(model: nn.Module, inputs: tuple[Any, ...]) -> torch.export.ExportedProgram:
    try:
        with torch.no_grad():
            model(*inputs)
    except Exception as error:
        raise ValueError(f"the model fails on the example: {error}") from error
    try:
        with torch.no_grad():
            return torch.export.export(model, inputs)
    except Exception as error:
        raise ValueError(f"torch.export cannot trace this model: {first_line(error)}") from error


def _walked(model: nn.Module, program: torch.export.ExportedProgram, refused: frozenset[str]) -> Walk:
    signature, state = program.graph_signature, dict(model.state_dict(keep_vars=True))
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    uses = Counter(id(value) for value in state.values())
    tensors = {
        node: (name, state[name]) for node, name in names.items() if name in state and uses[id(state[name])] == 1
    }
    walk = Walk(model, tensors, HANDLERS, refused)
    walk.run(program.graph)
    return walk


def _left(made: _Shrunk) -> Iterator[Left]:
    """The units of each layer that could not be removed, and why."""
    atoms = made.walk.atoms
    stay, held = ({atoms.sets[atom]: why for atom, why in reversed(of.items())} for of in (atoms.stay, atoms.held))
    together = "summed or grouped with units that are in use, or the last of its layer"
    for layer in made.walk.layers:
        spare = np.isfinite(layer.out.constant) | ~layer.out.needed
        sets = atoms.sets[layer.out.atoms[spare]]
        reasons = Counter(stay.get(one) or held.get(one) or together for one in sets[~made.removed[sets]])
        for why, units in reasons.items():
            yield Left(layer.names[0].rpartition(".")[0] or layer.names[0], units, why)


# -- smaller tensors -----------------------------------------------------------------------------------------------


@dataclass
class _Shrunk:
    """The smaller copy of a network, and the remaining old indices by tensor and dimension."""

    module: nn.Module
    removed: np.ndarray  # bool, for each set of atoms
    walk: Walk
    kept: dict[str, dict[int, Tensor]] = field(default_factory=dict)

    def stays(self, value: Value) -> np.ndarray:
        """The indices of the remaining channels."""
        return np.flatnonzero(~self.removed[self.walk.atoms.sets[value.atoms]])

    def take(self, name: str, dim: int, places: np.ndarray) -> None:
        """Keep these indices of a tensor along a dimension."""
        whole: Tensor = attrgetter(name)(self.module)
        if len(places) == whole.shape[dim]:
            return
        index = torch.from_numpy(places)
        self.kept.setdefault(name, {})[dim] = index
        _put(self.module, name, whole.detach().index_select(dim, index.to(whole.device)))


def _shrunk(model: nn.Module, walk: Walk) -> _Shrunk:
    """The copy without unneeded channels, with constants moved to the biases of the layers that read them."""
    made = _Shrunk(copied(model), walk.atoms.removable(walk.values), walk)
    for parameter in made.module.parameters():
        parameter.grad = None
    for layer in walk.layers:
        _fold(made, layer)
        _shrink_layer(made, layer)
    for names, value in walk.norms:
        for name in names:
            made.take(name, 0, made.stays(value))
    _fit_(made.module, model)
    return made


def _fold(made: _Shrunk, layer: Layer) -> None:
    """Move removable constants into the bias; merge those it cannot absorb into one of them. Zero their weights."""
    spare = ~layer.source.needed
    name, bias_name = layer.names
    weight: Tensor = attrgetter(name)(made.module)
    more, groups = layer.folded(spare), len(layer.weight)
    if more.any():
        bias = 0.0 if bias_name is None else attrgetter(bias_name)(made.module).detach().double().cpu().numpy()
        total = torch.from_numpy(more + bias)
        _put(made.module, bias_name or _beside(name), total.to(weight))
    zeros = torch.from_numpy(spare.reshape(groups, -1))
    rows = zeros.repeat_interleave(len(weight) // groups, 0).reshape(*weight.shape[:2], *[1] * (weight.dim() - 2))
    smaller = weight.detach().masked_fill(rows.to(weight.device), 0.0)
    carried = layer.carried & spare
    if carried.any() and not spare[layer.carrier]:
        share = np.where(carried, layer.source.constant, 0.0) / layer.source.constant[layer.carrier]
        more = torch.from_numpy(np.einsum("oik,i->ok", layer.weight[0], share)).reshape(smaller[:, 0].shape)
        smaller[:, layer.carrier] = (smaller[:, layer.carrier].double() + more.to(weight.device)).to(weight)
    _put(made.module, name, smaller)


def _shrink_layer(made: _Shrunk, layer: Layer) -> None:
    rows, (name, bias_name) = made.stays(layer.out), layer.names
    made.take(name, 0, rows)
    if len(layer.weight) == 1:
        made.take(name, 1, made.stays(layer.source))
    owner = made.module.get_submodule(name.rpartition(".")[0])
    if bias_name is not None or getattr(owner, "bias", None) is not None:  # folding may have added it
        made.take(bias_name or _beside(name), 0, rows)


def _fit_(module: nn.Module, whole: nn.Module) -> None:
    """Set the layers' channel numbers to those of their tensors; `whole` is the network before shrinking."""
    for name, layer in module.named_modules():
        held, weight, before = layer.__dict__, getattr(layer, "weight", None), whole.get_submodule(name)
        if isinstance(layer, nn.modules.conv._ConvNd) and isinstance(before, nn.modules.conv._ConvNd):
            if layer.transposed:
                continue
            assert isinstance(weight, Tensor)
            held["groups"] = len(weight) // (before.out_channels // before.groups) if before.groups > 1 else 1
            held["in_channels"], held["out_channels"] = weight.shape[1] * held["groups"], len(weight)
        elif isinstance(layer, nn.Linear):
            held["out_features"], held["in_features"] = layer.weight.shape
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None:
            held["num_features"] = len(layer.running_mean)


def load_compacted(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """A copy of `model`, the network before compaction, with the smaller tensors from a file.

    Raises: `CheckpointError` for an unreadable file; ValueError for tensors that do not fit a smaller `model`.
    """
    made, wanted, state = copy.deepcopy(model), model.state_dict(), load(path)
    for name in wanted.keys() ^ state.keys():
        owner = dict(model.named_modules()).get(name.rpartition(".")[0])
        if name in wanted or not name.endswith("bias") or getattr(owner, "bias", 0) is not None:
            where = "only the model" if name in wanted else "only the file"
            raise ValueError(f"{path} is no smaller {type(model).__name__}: {where} has {name!r}")
    for name, values in state.items():
        if name in wanted:
            got, whole = tuple(values.shape), tuple(wanted[name].shape)
            if len(got) != len(whole) or any(a > b for a, b in zip(got, whole, strict=True)):
                text = f"{name!r} has shape {got}, expected at most {whole}"
                raise ValueError(f"{path} is no smaller {type(model).__name__}: {text}")
        _put(made, name, values.to(wanted[name]) if name in wanted else values)
    _fit_(made, model)
    return made


def _put(module: nn.Module, name: str, values: Tensor) -> None:
    """Replace a parameter or buffer by one of any shape."""
    place, _, leaf = name.rpartition(".")
    owner = module.get_submodule(place)
    whole = getattr(owner, leaf)
    if isinstance(whole, nn.Parameter) or whole is None:
        setattr(owner, leaf, nn.Parameter(values, requires_grad=whole is None or whole.requires_grad))
    else:
        setattr(owner, leaf, values)


def _beside(name: str) -> str:
    """The name of the bias next to a weight."""
    return ".".join([*name.split(".")[:-1], "bias"])
