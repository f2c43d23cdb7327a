"""The layers covered by mean-field theory, and the residual sums around them in a network's forward."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from sparsight.measure.criticality.activations import traced, verb, words
from sparsight.model.names import modules_of
from sparsight.model.weights import layout_of

_ADDS = (operator.add, operator.iadd, torch.add, Tensor.add, Tensor.add_)
_PASSING = words(
    "dropout dropout1d dropout2d dropout3d reshape view flatten permute transpose contiguous mul imul div truediv"
)
_PASSES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def weighted_layers(model: nn.Module) -> dict[str, nn.Linear | nn.modules.conv._ConvNd]:
    """Linear and convolution layers by the plain name of their weight, tied ones once, without transposed ones.

    Includes transformers' Conv1D, with a weight [inputs, outputs]: see `layout_of`.
    """
    found, seen = {}, set()
    for name, module in modules_of(model):
        if layout_of(module)[0] in ("linear", "convolution"):
            if id(module.weight) not in seen:
                found[f"{name}.weight" if name else "weight"] = module
            seen.add(id(module.weight))
    return found


def left_out(model: nn.Module) -> tuple[str, ...]:
    """The weights of transposed convolutions, which the theory does not cover."""
    kinds = {name: layout_of(module)[0] for name, module in modules_of(model)}
    return tuple(f"{n}.weight" if n else "weight" for n, kind in kinds.items() if kind == "transposed convolution")


def fan_in(layer: nn.Module) -> int:
    """Inputs of one unit of a linear or convolution layer: channels / groups x kernel size."""
    return layout_of(layer)[1].rows(layer.weight)[0].numel()  # type: ignore[arg-type]


# -- shortcuts ---------------------------------------------------------------------------------------------------


def is_residual(model: nn.Module) -> bool:
    """Whether tracing finds shortcuts around layers of a model."""
    sums = residual_sums(model)
    return bool(sums.blocks or sums.endless)


@dataclass(frozen=True)
class Sums:
    """For each residual block call, the modules that end its branch (several for a nested sum); branches without such a
    module; and sums of two sides with equally many layers.
    """

    blocks: tuple[tuple[str, ...], ...] = ()
    endless: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


def residual_sums(model: nn.Module) -> Sums:
    """The residual sums of a model; none if its forward cannot be traced."""
    graph = traced(model)
    if graph is None:
        return Sums()
    layers = {id(layer) for layer in weighted_layers(graph).values()}
    above: dict[fx.Node, set[fx.Node]] = {}
    blocks: list[tuple[str, ...]] = []
    endless: list[str] = []
    unclear: dict[fx.Node, str] = {}
    for node in graph.graph.nodes:
        above[node] = {node}.union(*(above[other] for other in node.all_input_nodes))
        if not _adds(node):
            continue
        a, b = node.all_input_nodes
        far = _distances(graph, above[a] | above[b], above[a] & above[b], layers)
        if math.inf in (far[a], far[b]) or far[a] == far[b] == 0:
            continue
        if far[a] == far[b]:
            unclear[node] = f"{_called(a)} + {_called(b)}"
            continue
        branch, joined = (a if far[a] > far[b] else b), set[fx.Node]()
        ends = _ends(graph, branch, unclear, joined)
        for part in joined:
            del unclear[part]
        if None in ends:
            endless.append(f"that of {_called(a)} + {_called(b)}, which ends in {_called(branch)}")
        else:
            blocks.append(tuple(end for end in ends if end is not None))
    calls = Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_module")
    calls.subtract(name for block in blocks for name in block)
    twice = {name for block in blocks for name in block if calls[name]}
    endless += [f"the branch that ends in {name}, which is called elsewhere too" for name in sorted(twice)]
    return Sums(tuple(blocks), tuple(endless), tuple(unclear.values()))


def _adds(node: fx.Node) -> bool:
    method = node.op == "call_method" and node.target in ("add", "add_")
    return (method or (node.op == "call_function" and node.target in _ADDS)) and len(node.all_input_nodes) == 2


def _distances(
    graph: fx.GraphModule, nodes: set[fx.Node], common: set[fx.Node], layers: set[int]
) -> dict[fx.Node, float]:
    """The fewest layers on a path from each node back to one of `common`."""
    found: dict[fx.Node, float] = {}
    for node in graph.graph.nodes:
        if node in nodes:
            step = node.op == "call_module" and id(graph.get_submodule(str(node.target))) in layers
            on = min((found[other] for other in node.all_input_nodes), default=math.inf)
            found[node] = 0 if node in common else step + on
    return found


def _ends(
    graph: fx.GraphModule, node: fx.Node, sums: Collection[fx.Node], joined: set[fx.Node]
) -> tuple[str | None, ...]:
    """The modules that end a branch, past dropout, reshaping and scaling, or None; adds nested sums to `joined`."""
    while True:
        if node in sums:
            joined.add(node)
            return tuple(end for side in node.all_input_nodes for end in _ends(graph, side, sums, joined))
        if node.op == "call_module" and not isinstance(graph.get_submodule(str(node.target)), _PASSES):
            return (str(node.target),)
        inputs = [other for other in node.all_input_nodes if other.op != "get_attr"]
        if len(inputs) != 1 or not (node.op == "call_module" or _passes(node, inputs[0])):
            return (None,)
        node = inputs[0]


def _passes(node: fx.Node, signal: fx.Node) -> bool:
    """Whether the function commutes with scaling of the signal."""
    over = verb(node) in ("div", "truediv") and node.args[0] is not signal
    return verb(node) in _PASSING and sum(one is signal for one in node.args) == 1 and not over


def _called(node: fx.Node) -> str:
    return verb(node) or str(node.target)
