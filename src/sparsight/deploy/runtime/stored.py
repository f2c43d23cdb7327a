"""A module with the tensors of a packed file, with sparse weights stored without their zeros."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sparsight.checkpoint.entry import Checkpoint, Entry
from sparsight.checkpoint.open import load_tensors
from sparsight.deploy.runtime.program import Runner, kept
from sparsight.deploy.runtime.trace import plain, single
from sparsight.deploy.runtime.weight import Weight
from sparsight.model.pretrained import fitting

_SPARSE = 0.5  # above this density a weight takes less memory dense


@dataclass
class Stored:
    """Weights without zeros and their entries in the file, by their placeholder parameters."""

    path: Path | None = None
    weights: dict[Tensor, Weight] = field(default_factory=dict)
    entries: dict[Tensor, Entry] = field(default_factory=dict)
    forwards: list[StoredForward] = field(default_factory=list)

    def layers(self, module: nn.Module) -> list[tuple[nn.Module, nn.Parameter]]:
        """The layers of a module without dense weights, and their placeholders."""
        found = ((layer, layer._parameters.get("weight")) for layer in module.modules())
        return [(layer, weight) for layer, weight in found if weight is not None and weight in self.weights]

    def fill_(self, module: nn.Module) -> None:
        """Restore the dense weights of a module's layers, and torch's forward."""
        for layer, weight in self.layers(module):
            layer._parameters["weight"] = _dense(self.entries[weight], weight)
            del layer.forward

    def reads(self) -> Reads:
        return Reads({weight.data_ptr(): weight for weight in self.weights})

    def fill_read_(self, model: nn.Module, reads: Reads) -> bool:
        """Fill layers with weights that were read; returns whether there were any."""
        found = [layer for layer, weight in self.layers(model) if weight in reads.found]
        for layer in found:
            self.fill_(layer)
        return bool(found)

    def forget(self) -> None:
        """Drop the layers' prepared weights: a part that runs as a whole does not need them."""
        for forward in self.forwards:
            forward.runners.clear()

    def refuse_state_dict(self, layer: nn.Module, *_: Any) -> None:
        if layer._parameters["weight"] in self.weights:
            raise RuntimeError(f"the dense weights of this network were never made: they are those of {self.path}")

    @contextmanager
    def as_torch(self, module: nn.Module) -> Iterator[None]:
        """A block in which the layers use torch's forward."""
        had = [(layer, weight, layer.forward) for layer, weight in self.layers(module)]
        for layer, *_ in had:
            del layer.forward
        try:
            yield
        finally:
            for layer, weight, forward in had:
                layer._parameters["weight"], layer.forward = weight, forward

    @contextmanager
    def dense(self, module: nn.Module) -> Iterator[None]:
        """A block in which the layers have dense weights and torch's forward."""
        layers = self.layers(module)
        with self.as_torch(module):
            for layer, weight in layers:
                layer._parameters["weight"] = _dense(self.entries[weight], weight)
            yield


class Reads(TorchDispatchMode):
    """Finds weights that torch operations read in its block, without going through their layers."""

    def __init__(self, places: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._places, self.found = places, set[Tensor]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = pytree.tree_leaves((args, kwargs)) if self._places else []
        read = (x.data_ptr() for x in given if isinstance(x, Tensor) and x.layout == torch.strided)
        self.found.update(self._places[place] for place in read if place in self._places)
        return func(*args, **(kwargs or {}))


class StoredForward:
    """The forward of a plain layer without a dense weight: float32 inputs of any size."""

    def __init__(self, layer: nn.Module, stored: Stored, half: bool) -> None:
        self._layer, self._stored, self._half = layer, stored, half
        self.runners: dict[tuple[int, ...], Runner] = {}
        self._lock = threading.Lock()

    def __call__(self, x: Tensor) -> Tensor:
        rows = isinstance(self._layer, nn.Linear)
        if not isinstance(x, Tensor) or (x.dim() < 1 if rows else x.dim() not in (3, 4)):
            what = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"a {type(self._layer).__name__} of packed weights takes {'rows' if rows else 'images'}, got {what}"
            )
        flat = x.reshape(-1, x.shape[-1]) if rows else x if x.dim() == 4 else x[None]
        runner = self._runner(tuple(flat.shape[1:]))
        if not runner.takes(flat):
            what = "a network of packed weights takes float32 on the CPU without autocast"
            raise ValueError(f"{what}, got {x.dtype} on {x.device}")
        out = runner(flat)
        return out.reshape(*x.shape[:-1], out.shape[-1]) if rows else out if x.dim() == 4 else out[0]

    def _runner(self, shape: tuple[int, ...]) -> Runner:
        def make() -> Runner:
            graph = single(self._layer, (1, *shape), self._stored.weights)
            assert graph is not None
            return Runner(graph, shape, self._half)

        with self._lock:
            return kept(self.runners, shape, make)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"this network cannot be pickled or copied: its weights are those of {self._stored.path}")


def stored_in(path: Path, model: nn.Module, half: bool) -> Stored:
    """Load the tensors of a file into a module.

    Packed weights of plain linear layers and convolutions with many zeros are stored without them: the parameter
    becomes a placeholder, NaN, and the layer computes from the packed values. Raises: as `load_into`; ValueError for a
    tensor that the file lacks.
    """
    entries, found = fitting(path, model), Stored(path)
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            owners.setdefault(id(parameter), []).append((module, name))
    rest, done = {}, set()
    for name, value in model.state_dict(keep_vars=True).items():
        places, entry = owners.get(id(value)), entries.get(name)
        if entry is None or id(value) in done:
            continue
        if places is None:
            rest[name] = _tensor(entry)
            continue
        done.add(id(value))
        kept = _kept(entry, value, places)
        if kept is None:
            made = _dense(entry, value)
        else:
            made = nn.Parameter(torch.full((), torch.nan).expand(entry.shape), requires_grad=False)
            found.weights[made], found.entries[made] = kept, entry
        for module, attribute in places:
            module._parameters[attribute] = made
            if kept is not None:
                module.forward = StoredForward(module, found, half)
                found.forwards.append(module.forward)
                module.register_state_dict_pre_hook(found.refuse_state_dict)
    model.load_state_dict(rest, strict=False, assign=any(tensor.is_meta for tensor in model.buffers()))
    empty = next((k for k, v in (*model.named_parameters(), *model.named_buffers()) if v.is_meta), None)
    if empty is not None:
        raise ValueError(f"{path} has no {empty!r}, and the model on the meta device has no values of it")
    return found


def _kept(entry: Entry, value: Tensor, places: list[tuple[nn.Module, str]]) -> Weight | None:
    """The weight without its zeros, if that saves memory and only plain layers read it."""
    if entry.packed is None or value.dtype != torch.float32 or not entry.dtype.startswith(("float", "bfloat")):
        return None
    own = any("forward" in vars(module) for module, _ in places)
    if value.dim() < 2 or own or not all(plain(module) and name == "weight" for module, name in places):
        return None
    found = Weight.stored(entry)
    return found if found.density <= _SPARSE else None


def _tensor(entry: Entry) -> Tensor:
    return load_tensors(Checkpoint(str(entry.path), "", (entry,)))[entry.name]


def _dense(entry: Entry, like: Tensor) -> nn.Parameter:
    return nn.Parameter(_tensor(entry).to(like.dtype), requires_grad=False)
