"""The elementwise expressions between the layers of a traced forward."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn import functional as F

from sparsight.measure.criticality.quadrature import Activation
from sparsight.model.linearised import ACTIVATIONS, every
from sparsight.numerics.exact import exact


def words(text: str) -> frozenset[str]:
    """The names in a text, separated by spaces."""
    return frozenset(text.split())


MODULES: tuple[type[nn.Module], ...] = tuple(
    getattr(nn, name)
    for name in words(
        "ReLU LeakyReLU Tanh Hardtanh Softsign ELU SELU GELU SiLU Mish Sigmoid Softplus CELU PReLU ReLU6 Hardswish "
        "Hardsigmoid LogSigmoid Softshrink Hardshrink Tanhshrink Threshold"
    )
)
_FUNCTIONS = every(ACTIVATIONS)
_METHODS = {name: getattr(torch, name) for name in ("tanh", "erf", "atan", "sin", "sigmoid")}
_METHODS |= {"relu": F.relu, "arctan": torch.atan}
_LINEAR = words(
    "add iadd sub isub subtract rsub mul imul multiply div divide true_divide truediv itruediv neg negative"
)
_BENT = words(
    "pow ipow square abs absolute exp expm1 log log1p log2 log10 logaddexp sqrt rsqrt reciprocal sign clamp clamp_min "
    "clamp_max clip maximum minimum where gt lt ge le cos tan sinh cosh asin acos atan arctan asinh acosh atanh erf "
    "erfc sin tanh sigmoid expit float_power softplus"
)
_LAYERS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.MultiheadAttention)
_PRODUCTS = words("linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d bilinear")


@dataclass(frozen=True)
class Found:
    """An activation in a forward: `inner` if a layer with weights comes after it, `gate` if it multiplies a signal."""

    name: str
    activation: Activation
    inner: bool
    gate: bool


def expressions(graph: fx.GraphModule) -> tuple[list[Found], int]:
    """The maximal nonlinear elementwise expressions of a forward, and the number of layers.

    An expression has one tensor and constants, such as x sigmoid(x) or 1.7159 tanh(2/3 x). It ends at operations on two
    tensors (a shortcut, a gate).
    """
    nodes = list(graph.graph.nodes)
    source = _sources(graph, nodes)
    layers = [node for node in nodes if _is_layer(graph, node)]
    before, after = _reach(layers, lambda n: n.all_input_nodes), _reach(layers, lambda n: list(n.users))
    found = []
    for node in nodes:
        at = source.get(node)
        if at is None or any(source.get(user) is at for user in node.users):
            continue
        alone = _known(graph, node) if node.all_input_nodes == [at] else None
        if alone is None and (node not in after or not _bends(graph, node, source, at)):
            continue
        name, activation = alone or (_text(graph, node, source, at), _Composed.of(graph, node, source, at))
        gate = any(verb(user) in ("mul", "imul", "multiply") and not _scales(user, node) for user in node.users)
        found.append(Found(name, activation, node in before, gate))
    return found, len(layers)


class _Composed:
    """An elementwise expression of a graph, as a function."""

    def __init__(self, steps: list[tuple[fx.Node, Any]], start: fx.Node, name: str) -> None:
        self.steps, self.start, self.__name__ = steps, start, name

    @classmethod
    def of(cls, graph: fx.GraphModule, end: fx.Node, source: dict[fx.Node, fx.Node], at: fx.Node) -> _Composed:
        parts = [node for node in graph.graph.nodes if node in _reach([end], lambda n: _inside(n, source, at))]
        steps = []
        for node in [*parts, end]:
            steps += [(n, _constant(graph, n)) for n in node.all_input_nodes if _constant(graph, n) is not None]
            module = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
            steps.append((node, copy.deepcopy(module).cpu().double().eval() if module is not None else None))
        return cls(steps, at, _text(graph, end, source, at))

    def __call__(self, u: Tensor) -> Tensor:
        known: dict[fx.Node, Any] = {self.start: u}
        for node, given in self.steps:
            if node.op == "get_attr":
                known[node] = given
                continue
            args, kwargs = map_arg((node.args, dict(node.kwargs)), known.__getitem__)
            if node.op == "call_module":
                known[node] = given(*args, **kwargs)
            elif node.op == "call_method":
                known[node] = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            else:
                assert callable(node.target)
                known[node] = node.target(*args, **kwargs)
        return known[self.steps[-1][0]]


def _sources(graph: fx.GraphModule, nodes: list[fx.Node]) -> dict[fx.Node, fx.Node]:
    """The input node of each elementwise node with one tensor."""
    found: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if _known(graph, node) is None and verb(node) not in _LINEAR | _BENT:
            continue
        inputs = {found.get(n, n) for n in node.all_input_nodes if _constant(graph, n) is None}
        if len(inputs) == 1:
            found[node] = inputs.pop()
    return found


def _known(graph: fx.GraphModule, node: fx.Node) -> tuple[str, Activation] | None:
    """The activation of a single node, and its spelling."""
    if node.op == "call_module" and isinstance(module := graph.get_submodule(str(node.target)), MODULES):
        return repr(module).replace("inplace=True", ""), module
    if node.op == "call_function" and node.target in _FUNCTIONS:
        assert callable(node.target)
        more, keywords = tuple(node.args[1:]), {k: v for k, v in node.kwargs.items() if k != "inplace"}
        if any(isinstance(one, fx.Node) for one in (*more, *keywords.values())):
            return None
        name = _spelled(node.target)
        return f"{name}{more or ''}{keywords or ''}", _given(node.target, more, keywords)
    if node.op == "call_method" and (name := str(node.target).rstrip("_")) in _METHODS:
        return _spelled(_METHODS[name]), _METHODS[name]
    return None


def _given(function: Callable[..., Tensor], more: tuple[Any, ...], keywords: dict[str, Any]) -> Activation:
    if not more and not keywords:
        return function
    return lambda u: function(u, *more, **keywords)


def _spelled(function: Callable[..., Tensor]) -> str:
    return getattr(function, "__name__", repr(function)).strip("_")


def verb(node: fx.Node) -> str:
    """The function or method that a node calls, without underscores around it; "" for another node."""
    if node.op == "call_method":
        return str(node.target).strip("_")
    return _spelled(node.target) if node.op == "call_function" and callable(node.target) else ""


def _bends(graph: fx.GraphModule, end: fx.Node, source: dict[fx.Node, fx.Node], at: fx.Node) -> bool:
    """Whether an expression is not linear, a x + b."""
    for node in (end, *_reach([end], lambda n: _inside(n, source, at))):
        plain = verb(node) in _LINEAR
        inputs = [n for n in node.all_input_nodes if _constant(graph, n) is None]
        divides = verb(node) in ("div", "divide", "true_divide", "truediv") and node.args[0] not in inputs
        product = verb(node) not in ("add", "iadd", "sub", "isub", "subtract", "rsub") and _times(node, inputs) > 1
        if not plain or divides or product:
            return True
    return False


def _times(node: fx.Node, inputs: list[fx.Node]) -> int:
    """The number of signals among a node's arguments: 2 for x x."""
    return sum(isinstance(one, fx.Node) and one in inputs for one in (*node.args, *node.kwargs.values()))


def _inside(node: fx.Node, source: dict[fx.Node, fx.Node], at: fx.Node) -> list[fx.Node]:
    return [n for n in node.all_input_nodes if source.get(n) is at]


def _reach(starts: list[fx.Node], onward: Callable[[fx.Node], list[fx.Node]]) -> set[fx.Node]:
    """All nodes reachable from these by `onward`."""
    seen: set[fx.Node] = set()
    waiting = [n for start in starts for n in onward(start)]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += onward(node)
    return seen


def _is_layer(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(graph.get_submodule(str(node.target)), _LAYERS)
    return node.op in ("call_function", "call_method") and verb(node) in _PRODUCTS | {"matmul", "mm", "addmm"}


def _constant(graph: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """The single number that a node reads from the model, in float64."""
    if node.op != "get_attr":
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return exact(value.detach()).cpu().reshape(()) if isinstance(value, Tensor) and value.numel() == 1 else None


def _scales(user: fx.Node, node: fx.Node) -> bool:
    """Whether a product multiplies a signal only by numbers or tensors of the model."""
    return all(other is node or other.op == "get_attr" for other in user.all_input_nodes)


def _text(graph: fx.GraphModule, node: Any, source: dict[fx.Node, fx.Node], at: fx.Node) -> str:
    """An expression as text: mul(tanh(mul(x, 0.66)), 1.7)."""
    if not isinstance(node, fx.Node):
        return f"{node:g}" if isinstance(node, float) else repr(node)
    if node is at:
        return "x"
    constant = _constant(graph, node)
    if constant is not None:
        return f"{float(constant):g}"
    name = type(graph.get_submodule(str(node.target))).__name__ if node.op == "call_module" else verb(node)
    given = [_text(graph, one, source, at) for one in node.args]
    given += [f"{key}={_text(graph, one, source, at)}" for key, one in node.kwargs.items()]
    return f"{name}({', '.join(given)})"
