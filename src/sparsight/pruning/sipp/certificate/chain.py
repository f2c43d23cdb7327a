"""Finds out whether a network is a chain of layers with relative errors that can be multiplied."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_RELU = (nn.ReLU, functional.relu, torch.relu, torch.relu_, "relu", "relu_")
_READ = ("size", "dim", "numel", "ndimension")
_FACTS = ("shape", "ndim", "dtype", "device")
_SAME = (nn.Flatten, nn.Identity, nn.Dropout, torch.flatten, functional.dropout, "flatten", "view", "reshape")
_PART = operator.getitem
_LARGEST = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, functional.max_pool1d, functional.max_pool2d)
_LARGEST_TOO = (torch.max_pool1d, torch.max_pool2d, functional.max_pool3d)
_MEAN_LAYERS = tuple(getattr(nn, f"{kind}Pool{n}d") for kind in ("Avg", "AdaptiveAvg") for n in (1, 2, 3))
_MEAN = (*_MEAN_LAYERS, *(getattr(functional, f"{kind}_pool{n}d") for kind in ("avg", "adaptive_avg") for n in (1, 2)))


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
        elif kind not in (_PART, *_SAME, *_LARGEST, *_LARGEST_TOO, *_MEAN):
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
