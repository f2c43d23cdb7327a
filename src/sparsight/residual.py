"""Stable ResNet: residual branches divided by the square root of their number."""

from __future__ import annotations

import copy
import fnmatch
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase

from sparsight.criticality.names import traced
from sparsight.criticality.phase import layers_of

_ADDS = (operator.add, operator.iadd, torch.add, Tensor.add, Tensor.add_)
_PASSES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@dataclass(frozen=True)
class BranchScale:
    """A forward hook that multiplies what a module returns. A value, so that the model can be copied and pickled."""

    factor: float

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return output * self.factor


def scales(blocks: int, kind: Literal["uniform", "decreasing"] = "uniform") -> tuple[float, ...]:
    """The factor of each of L residual branches: 1 / sqrt(L), or 1 / (sqrt(k) log(k + 1)) for the k-th, k from 1.

    Source: Hayou et al., ICLR 2021, section 4; "Stable ResNet", AISTATS 2021, for the decreasing one.
    """
    if blocks < 1:
        raise ValueError(f"a residual network has at least one block: got {blocks!r}")
    if kind == "uniform":
        return (1 / math.sqrt(blocks),) * blocks
    if kind == "decreasing":
        return tuple(1 / (math.sqrt(k) * math.log(k + 1)) for k in range(1, blocks + 1))
    raise ValueError(f"kind is {kind!r}: allowed is 'uniform' or 'decreasing'")


def stable_resnet(
    model: nn.Module,
    branches: Sequence[str] | None = None,
    *,
    kind: Literal["uniform", "decreasing"] = "uniform",
    fold: bool = False,
) -> nn.Module:
    """A copy of a residual network whose branches are scaled: y = x + F(x) / sqrt(L), L the number of blocks.

    `branches` names the last module of each branch (after its last norm), in order of depth, by shell-style patterns:
    "blocks.*.bn2". None finds them: the model is traced, and of each sum the side with more layers is the branch,
    ending in a module. Shortcuts, stem and classifier stay as they are.

    The copy has the model's types, names and state dict; the scale is a forward hook on those modules, kept by copies
    and pickles. With `fold` there is no hook: the last module's weight and bias are multiplied instead, which computes
    the same at first and trains differently, its gradients being larger by sqrt(L).

    Errors: no branch found, a pattern that matches nothing, a model that is scaled already, folding a module without
    weight. Source: Hayou et al., ICLR 2021, section 4 (their code scales after the last batch norm of the block).
    """
    if is_stable(model):
        raise ValueError(f"{type(model).__name__} is a Stable ResNet already: scale the original, once")
    names = residual_branches(model) if branches is None else _matched(model, branches)
    if not names:
        raise ValueError(
            f"found no residual branch in {type(model).__name__}: name the last module of each with branches=[...]"
        )
    made = copy.deepcopy(model)
    for name, factor in zip(names, scales(len(names), kind), strict=True):
        module = made.get_submodule(name)
        if fold:
            _fold_(name, module, factor)
        else:
            module.register_forward_hook(BranchScale(factor))
    return made


def is_stable(model: nn.Module) -> bool:
    """Whether the branches of a model are scaled, by `stable_resnet` without `fold` or as the zoo does it."""
    return any(
        getattr(module, "branch_scale", 1.0) != 1.0
        or any(isinstance(hook, BranchScale) for hook in module._forward_hooks.values())
        for module in model.modules()
    )


def residual_branches(model: nn.Module) -> tuple[str, ...]:
    """The names of the modules in which the residual branches of a model end, in order of execution.

    Found by tracing its forward: () where that fails, or there is none. A sum counts if one side passes through more
    linear and convolution layers than the other since they parted, and ends in a module (dropout aside).
    """
    graph = traced(model)
    if graph is None:
        return ()
    layers = {id(layer) for layer in layers_of(graph).values()}
    above: dict[fx.Node, set[fx.Node]] = {}
    found: list[str] = []
    for node in graph.graph.nodes:
        above[node] = {node}.union(*(above[other] for other in node.all_input_nodes))
        method = node.op == "call_method" and node.target in ("add", "add_")
        sides = node.all_input_nodes
        if not (method or (node.op == "call_function" and node.target in _ADDS)) or len(sides) != 2:
            continue
        own = [above[a] - above[b] for a, b in (sides, reversed(sides))]
        sizes = [sum(_is(graph, n, layers) for n in part) for part in own]
        if sizes[0] != sizes[1]:
            end = _end(graph, sides[0] if sizes[0] > sizes[1] else sides[1])
            if end is not None:
                found.append(end)
    return tuple(dict.fromkeys(found))


def _is(graph: fx.GraphModule, node: fx.Node, layers: set[int]) -> bool:
    return node.op == "call_module" and id(graph.get_submodule(str(node.target))) in layers


def _end(graph: fx.GraphModule, node: fx.Node) -> str | None:
    """The module that a branch ends in, past what only drops or passes on."""
    while node.op == "call_module":
        if not isinstance(graph.get_submodule(str(node.target)), _PASSES):
            return str(node.target)
        node = node.all_input_nodes[0]
    return None


def _matched(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    names = [name for name, _ in model.named_modules() if name]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"pattern {pattern!r} matches no module: the names are {', '.join(names[:8])}, ...")
    return tuple(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def _fold_(name: str, module: nn.Module, factor: float) -> None:
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, nn.Parameter) or not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd, _NormBase)):
        raise ValueError(
            f"cannot fold a scale into {name!r} ({type(module).__name__}): allowed is a layer or batch norm"
        )
    with torch.no_grad():
        weight.mul_(factor)
        if isinstance(bias, nn.Parameter):
            bias.mul_(factor)
