"""Walks torch's graph, forwards to find constants and backwards to find what is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from sparsight.deploy.compaction.channels import Atoms, Value

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Opaque(Exception):
    """The effect of an operation on channels is unknown, so all of them stay; the message says why."""


@dataclass(eq=False)
class Layer:
    """A convolution or linear layer: out = W source + bias."""

    names: tuple[str, str | None]  # of weight and bias
    weight: np.ndarray  # float64 (out, in / groups, kernel), flat
    source: Value
    out: Value
    groups: int
    folds: np.ndarray  # bool: constant input channels that the bias can absorb
    carried: np.ndarray  # bool: other constant ones, which the largest of them can stand for

    @property
    def carrier(self) -> int:
        return int(np.abs(np.where(self.carried, self.source.constant, 0.0)).argmax())

    def needs(self, outputs: np.ndarray) -> np.ndarray:
        """The inputs that these outputs need."""
        needed = self.reaching(outputs) & ~self.folds
        if (needed & self.carried).any():
            needed &= ~self.carried
            needed[self.carrier] = True
        return needed

    def columns(self, group: int) -> slice:
        size = len(self.source.atoms) // self.groups
        return slice(group * size, (group + 1) * size)

    def rows(self, group: int) -> slice:
        size = len(self.out.atoms) // self.groups
        return slice(group * size, (group + 1) * size)

    def folded(self, chosen: np.ndarray) -> np.ndarray:
        """The contribution to each output of the chosen inputs that fold."""
        constant, sums = np.where(chosen & self.folds, self.source.constant, 0.0), self.weight.sum(2)
        parts = [sums[self.rows(g)] @ constant[self.columns(g)] for g in range(self.groups)]
        return np.concatenate(parts)

    def reached(self, inputs: np.ndarray) -> np.ndarray:
        """Which outputs have a nonzero weight from one of those inputs."""
        there = (self.weight != 0).any(2)
        return np.concatenate([there[self.rows(g)] @ inputs[self.columns(g)] for g in range(self.groups)])

    def reaching(self, outputs: np.ndarray) -> np.ndarray:
        """Which inputs have a nonzero weight to one of those outputs."""
        there = (self.weight != 0).any(2)
        return np.concatenate([outputs[self.rows(g)] @ there[self.rows(g)] for g in range(self.groups)])


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
    back: list[Callable[[], None]] = field(default_factory=list)

    def run(self, graph: fx.Graph) -> None:
        for node in graph.nodes:
            if node.op == "call_function":
                self.found[node] = self.call(node)
            elif node.op == "output":
                self.keep(node, "an output of the network")
        for step in reversed(self.back):
            step()

    def call(self, node: fx.Node) -> Value | None:
        name = str(node.target).removeprefix("aten.").split(".")[0]
        handler = self.handlers.get(name) or self.handlers.get(name.removesuffix("_"))
        try:
            if handler is None or name in self.refused:
                raise Opaque(f"{name} needs all channels")
            made = handler(self, node)
        except Opaque as why:
            self.keep(node, str(why))
            return None
        self.values.append(made)
        if name.endswith("_"):  # in place: later readers of the argument read the result
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

    def owner(self, name: str) -> nn.Module:
        return self.model.get_submodule(name.rpartition(".")[0])

    def layer(self, weight: Any, bias: Any, source: Value, axis: int, padded: bool, groups: int = 1) -> Value:
        """The output of a convolution or linear layer for `source`."""
        (name, values), (bias_name, shift) = self.tensor(weight), (None, 0.0)
        if bias is not None:
            bias_name, shift = self.tensor(bias)
        values = values.reshape(*values.shape[:2], math.prod(values.shape[2:]))
        constant = np.isfinite(source.constant)
        has_bias = bias is not None or type(self.owner(name)) in _LAYERS  # others might ignore a new bias
        folds = constant & ((source.constant == 0) | (not padded and has_bias))
        out = Value(axis, self.atoms.fresh(len(values)), np.full(len(values), np.nan))
        carried = constant & ~folds & (groups == 1)
        made = Layer((name, bias_name), values, source, out, groups, folds, carried)
        if groups > 1:
            for g in range(groups):
                members = [*source.atoms[made.columns(g)], *out.atoms[made.rows(g)]]
                self.atoms.join(members[:-1], members[1:])
        known = ~made.reached(~folds)
        out.constant = np.where(known, made.folded(folds) + shift, np.nan)
        if (constant & ~folds).any():
            why = f"a constant that {name.rpartition('.')[0] or name} pads with zeros or has no bias for"
            self.atoms.note(self.atoms.held, source.atoms[constant & ~folds], why)
        self.layers.append(made)
        self.back.append(lambda: _or(source.needed, made.needs(out.needed)))
        return out

    def through(self, out: Value, *sources: Value) -> Value:
        """Channel by channel: a needed output needs its sources."""

        def step() -> None:
            for source in sources:
                _or(source.needed, out.needed)

        self.back.append(step)
        return out


def _or(needed: np.ndarray, more: np.ndarray) -> None:
    needed |= more


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a node by their names in torch's schema, with defaults."""
    target: Any = node.target
    known = target._schema.arguments
    defaults = {a.name: a.default_value if a.has_default_value() else None for a in known}
    return defaults | dict(zip(defaults, node.args, strict=False)) | dict(node.kwargs)


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
