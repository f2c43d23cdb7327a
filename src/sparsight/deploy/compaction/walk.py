"""Walks torch's graph, forwards to find constants and backwards to find what is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from sparsight.deploy.torch_graph import name_of

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Opaque(Exception):
    """The effect of an operation on channels is unknown, so all of them stay; the message says why."""


@dataclass(eq=False)
class Value:
    """The channels of an activation, along dimension `axis`."""

    axis: int
    atoms: np.ndarray  # int: channels of one atom are removed together or not at all
    constant: np.ndarray  # float64: a channel's constant value; NaN: not known to be constant
    needed: np.ndarray = field(init=False)  # bool: whether any output depends on it, found from the end backwards

    def __post_init__(self) -> None:
        self.needed = np.zeros(len(self.atoms), bool)


@dataclass
class Atoms:
    """Which atoms must be removed together, and why some must stay."""

    count: int = 0
    pairs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # removed together: each with its partner
    stay: dict[int, str] = field(default_factory=dict)  # by atom: why it must not be removed
    held: dict[int, str] = field(default_factory=dict)  # by atom: why a constant in it cannot be folded away

    def fresh(self, count: int) -> np.ndarray:
        self.count += count
        return np.arange(self.count - count, self.count)

    def note(self, reasons: dict[int, str], atoms: np.ndarray, why: str) -> None:
        for atom in atoms.tolist():
            reasons.setdefault(atom, why)

    @cached_property
    def sets(self) -> np.ndarray:
        """For each atom the number of the set that is removed as one, once the walk has ended."""
        none = np.empty(0, np.int64)
        first, second = (np.concatenate([none, *side]) for side in zip((none, none), *self.pairs, strict=True))
        graph = coo_array((np.ones(len(first)), (first, second)), shape=(self.count, self.count))
        return connected_components(graph, directed=False)[1]

    def removable(self, values: Iterable[Value]) -> np.ndarray:
        """Whether each set has no channel that is needed or must stay, bool.

        Each activation keeps at least one channel, because torch has no empty convolutions.
        """
        removed = np.ones(self.count, bool)
        removed[self.sets[list(self.stay)]] = False
        for value in values:
            removed[self.sets[value.atoms[value.needed]]] = False
        for value in values:
            sets = self.sets[value.atoms]
            if len(sets) and removed[sets].all():
                removed[sets[0]] = False
        return removed


@dataclass(eq=False)
class Layer:
    """A convolution or linear layer: out = W source + bias."""

    names: tuple[str, str | None]  # of weight and bias
    weight: np.ndarray  # float64 (groups, out / groups, in / groups, kernel)
    source: Value
    out: Value
    folds: np.ndarray  # bool: constant input channels that the bias can absorb
    carried: np.ndarray  # bool: other constant channels; the largest can stand for them all

    @property
    def carrier(self) -> int:
        return int(np.abs(np.where(self.carried, self.source.constant, 0.0)).argmax())

    def needs(self, outputs: np.ndarray) -> np.ndarray:
        """The inputs that these outputs need."""
        there = (self.weight != 0).any(3)
        needed = (outputs.reshape(len(there), 1, -1) @ there).reshape(-1) & ~self.folds
        if (needed & self.carried).any():
            needed &= ~self.carried
            needed[self.carrier] = True
        return needed

    def folded(self, chosen: np.ndarray) -> np.ndarray:
        """The contribution to each output of the chosen inputs that fold."""
        return _product(self.weight.sum(3), np.where(chosen & self.folds, self.source.constant, 0.0))

    def reached(self, inputs: np.ndarray) -> np.ndarray:
        """Which outputs have a nonzero weight from any of these inputs."""
        return _product((self.weight != 0).any(3), inputs)


def _product(matrices: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The product of each group's matrix with its part of x."""
    return (matrices @ x.reshape(len(matrices), -1, 1)).reshape(-1)


@dataclass
class Walk:
    """The channels of each node of torch's graph; None if all of them stay."""

    model: nn.Module
    tensors: Mapping[str, tuple[str, Tensor]]  # by placeholder: the name in the model, and the values
    handlers: Mapping[str, Callable[[Walk, fx.Node], Value]]
    refused: frozenset[str] = frozenset()  # operations to treat as opaque
    atoms: Atoms = field(default_factory=Atoms)
    found: dict[fx.Node, Value | None] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    norms: list[tuple[tuple[str, ...], Value]] = field(default_factory=list)  # tensors with one number per channel
    back: list[tuple[Value, Callable[[], Any]]] = field(default_factory=list)  # which channels of a source are needed

    def run(self, graph: fx.Graph) -> None:
        for node in graph.nodes:
            if node.op == "call_function":
                self.found[node] = self.call(node)
            elif node.op == "output":
                self.keep(node, "an output of the network")
        for source, needed in reversed(self.back):
            source.needed |= needed()

    def call(self, node: fx.Node) -> Value | None:
        name, in_place = name_of(node)
        handler = self.handlers.get(name)
        try:
            if handler is None or name in self.refused:
                raise Opaque(f"{name}{'_' if in_place else ''} needs all channels")
            made = handler(self, node)
        except Opaque as why:
            self.keep(node, str(why))
            return None
        self.values.append(made)
        if in_place:  # later readers of the argument read the result
            self.found[node.all_input_nodes[0]] = made
        return made

    def keep(self, node: fx.Node, why: str) -> None:
        for source in node.all_input_nodes:
            value = self.found.get(source)
            if value is not None:
                value.needed[:] = True
                self.atoms.note(self.atoms.stay, value.atoms, why)

    def read(self, node: Any, axis: int) -> Value:
        """The channels of an activation, which must be along `axis`."""
        if not isinstance(node, fx.Node) or not isinstance(node.meta.get("val"), Tensor):
            raise Opaque("what is computed from a number needs all channels")
        value = self.found.get(node)
        if value is None:
            count = int(node.meta["val"].shape[axis])
            value = Value(axis, self.atoms.fresh(count), np.full(count, np.nan))
            value.needed[:] = True
            self.atoms.note(self.atoms.stay, value.atoms, "an input of the network")
        if value.axis != axis:
            raise Opaque("an operation along another dimension needs all channels")
        return value

    def own(self, node: fx.Node) -> Value:
        """The channels of an activation, along any dimension."""
        value = self.found.get(node)
        if value is None:
            raise Opaque("an input of the network")
        return value

    def tensor(self, node: Any) -> tuple[str, np.ndarray]:
        """The name and values of a parameter or buffer that nothing else uses."""
        if not isinstance(node, fx.Node) or node.name not in self.tensors:
            raise Opaque("a weight that is computed stays as it is")
        if len(node.users) > 1:
            raise Opaque("a weight that is used more than once stays as it is")
        name, values = self.tensors[node.name]
        return name, values.detach().double().cpu().numpy()

    def layer(self, weight: Any, bias: Any, source: Value, axis: int, padded: bool, groups: int = 1) -> Value:
        """The output of a convolution or linear layer for `source`."""
        (name, values), (bias_name, shift) = self.tensor(weight), (None, 0.0)
        if bias is not None:
            bias_name, shift = self.tensor(bias)
        inner, *kernel = values.shape[1:]
        values = values.reshape(groups, len(values) // groups, inner, math.prod(kernel))
        constant = np.isfinite(source.constant)
        place = name.rpartition(".")[0]  # other modules might ignore a new bias
        has_bias = bias is not None or type(self.model.get_submodule(place)) in _LAYERS
        folds = constant & ((source.constant == 0) | (not padded and has_bias))
        size = values.shape[0] * values.shape[1]
        out = Value(axis, self.atoms.fresh(size), np.full(size, np.nan))
        carried = constant & ~folds & (groups == 1)
        made = Layer((name, bias_name), values, source, out, folds, carried)
        if groups > 1:
            members = np.hstack([value.atoms.reshape(groups, -1) for value in (source, out)])
            self.atoms.pairs.append((members[:, :-1].reshape(-1), members[:, 1:].reshape(-1)))
        known = ~made.reached(~folds)
        out.constant = np.where(known, made.folded(folds) + shift, np.nan)
        if (constant & ~folds).any():
            why = f"a constant that {place or name} pads with zeros or has no bias for"
            self.atoms.note(self.atoms.held, source.atoms[constant & ~folds], why)
        self.layers.append(made)
        self.back.append((source, lambda: made.needs(out.needed)))
        return out

    def pointwise(self, source: Value, *others: Value, **changes: Any) -> Value:
        """`source` with some fields changed, computed channel by channel from it and the others."""
        out = replace(source, **changes)
        self.back += [(value, lambda: out.needed) for value in (source, *others)]
        return out


def shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(int(size) for size in node.meta["val"].shape)


def applied(node: fx.Node, values: Mapping[fx.Node, Value]) -> np.ndarray:
    """The result of a node's operation on constants, one per channel; NaN if any is unknown."""
    target: Any = node.target
    dims = {n: (1, -1, *[1] * (len(shape(n)) - 2)) for n in values}
    fill = {n: torch.from_numpy(v.constant.copy()).reshape(dims[n]) for n, v in values.items()}
    args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda n: fill[n])
    known = np.logical_and.reduce([np.isfinite(v.constant) for v in values.values()])
    return np.where(known, target(*args, **kwargs).numpy().reshape(-1), np.nan)
