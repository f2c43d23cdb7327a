"""Makes a copy of a network with smaller tensors and matching channel numbers."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from sparsight.checkpoint import load
from sparsight.deploy.compaction.channels import Value
from sparsight.deploy.compaction.walk import Layer, Walk
from sparsight.deploy.comparing import copied


@dataclass
class Shrunk:
    """The smaller copy of a network, and the remaining old indices by tensor and dimension."""

    module: nn.Module
    removed: set[int]
    walk: Walk
    kept: dict[str, dict[int, Tensor]] = field(default_factory=dict)

    def stays(self, value: Value) -> np.ndarray:
        """The indices of the remaining channels."""
        return np.flatnonzero([root not in self.removed for root in self.walk.atoms.roots(value.atoms).tolist()])

    def take(self, name: str, dim: int, places: np.ndarray) -> None:
        """Keep these indices of a tensor along a dimension."""
        owner, leaf = _owner(self.module, name)
        whole: Tensor = getattr(owner, leaf)
        if len(places) == whole.shape[dim]:
            return
        index = torch.from_numpy(places)
        self.kept.setdefault(name, {})[dim] = index
        put(self.module, name, whole.detach().index_select(dim, index.to(whole.device)))


def shrunk(model: nn.Module, walk: Walk) -> Shrunk:
    """The copy without unneeded channels, with constants moved to the biases of the layers that read them."""
    made = Shrunk(copied(model), walk.atoms.removable(walk.values), walk)
    for parameter in made.module.parameters():
        parameter.grad = None
    for layer in walk.layers:
        _fold(made, layer)
        _shrink_layer(made, layer)
    for names, value in walk.norms:
        for name in names:
            made.take(name, 0, made.stays(value))
    fit_(made.module, model)
    return made


def _fold(made: Shrunk, layer: Layer) -> None:
    """Move removable constants into the bias, or those that it cannot absorb into one of them; zero their weights."""
    spare = ~layer.source.needed
    name, bias_name = layer.names
    owner, leaf = _owner(made.module, name)
    weight: Tensor = getattr(owner, leaf)
    more = layer.folded(spare)
    if more.any():
        bias = None if bias_name is None else _value(made.module, bias_name)
        total = torch.from_numpy(more + (0.0 if bias is None else bias.detach().double().cpu().numpy()))
        put(made.module, bias_name or _beside(name), total.to(weight))
    zeros = torch.from_numpy(np.stack([spare[layer.columns(g)] for g in range(layer.groups)]))
    rows = zeros.repeat_interleave(len(weight) // layer.groups, 0).reshape(*weight.shape[:2], *[1] * (weight.dim() - 2))
    smaller = weight.detach().masked_fill(rows.to(weight.device), 0.0)
    carried = layer.carried & spare
    if carried.any() and not spare[layer.carrier]:
        share = np.where(carried, layer.source.constant, 0.0) / layer.source.constant[layer.carrier]
        more = torch.from_numpy(np.einsum("oik,i->ok", layer.weight, share)).reshape(smaller[:, 0].shape)
        smaller[:, layer.carrier] = (smaller[:, layer.carrier].double() + more.to(weight.device)).to(weight)
    put(made.module, name, smaller)


def _shrink_layer(made: Shrunk, layer: Layer) -> None:
    rows, columns = made.stays(layer.out), made.stays(layer.source)
    name, _ = layer.names
    owner, _ = _owner(made.module, name)
    made.take(name, 0, rows)
    if layer.groups == 1:
        made.take(name, 1, columns)
    if layer.names[1] is not None:
        made.take(layer.names[1], 0, rows)
    elif getattr(owner, "bias", None) is not None:  # which it got from what was folded
        made.take(_beside(name), 0, rows)


def fit_(module: nn.Module, whole: nn.Module) -> None:
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
        put(made, name, values.to(wanted[name]) if name in wanted else values)
    fit_(made, model)
    return made


def put(module: nn.Module, name: str, values: Tensor) -> None:
    """Replace a parameter or buffer by one of any shape."""
    owner, leaf = _owner(module, name)
    whole = getattr(owner, leaf)
    if isinstance(whole, nn.Parameter) or whole is None:
        setattr(owner, leaf, nn.Parameter(values, requires_grad=whole is None or whole.requires_grad))
    else:
        setattr(owner, leaf, values)


def _beside(name: str) -> str:
    """The name of the bias next to a weight."""
    return ".".join([*name.split(".")[:-1], "bias"])


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    place, _, leaf = name.rpartition(".")
    return module.get_submodule(place), leaf


def _value(module: nn.Module, name: str) -> Tensor:
    owner, leaf = _owner(module, name)
    return getattr(owner, leaf)
