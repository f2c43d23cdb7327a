"""Activations by name, and the activation of a network: the elementwise expressions of its forward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from sparsight.measure.criticality.quadrature import Activation
from sparsight.model.linearised import ACTIVATIONS, every
from sparsight.numerics.exact import exact


def _linear(u: Tensor) -> Tensor:
    return u * 1.0


NAMED: Mapping[str, Activation] = {
    "relu": F.relu, "leaky-relu": F.leaky_relu, "tanh": torch.tanh, "hardtanh": F.hardtanh, "erf": torch.erf,
    "arctan": torch.arctan, "softsign": F.softsign, "sin": torch.sin, "elu": F.elu, "selu": F.selu, "gelu": F.gelu,
    "silu": F.silu, "mish": F.mish, "sigmoid": torch.sigmoid, "softplus": F.softplus, "linear": _linear,
}  # fmt: skip
"""The activations known to the command line and the recipes."""

Name = Literal[
    "relu", "leaky-relu", "tanh", "hardtanh", "erf", "arctan", "softsign", "sin", "elu", "selu", "gelu", "silu", "mish",
    "sigmoid", "softplus", "linear",
]  # fmt: skip


class _TensorProxy(fx.Proxy):
    """A proxy that passes instance checks for a tensor."""

    _is_param = _is_buffer = False

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Tensor


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _TensorProxy(node, self)

    def create_arg(self, a: Any) -> Any:
        return a.node if issubclass(type(a), fx.Proxy) else super().create_arg(a)


def traced(model: nn.Module) -> fx.GraphModule | None:
    """The graph of a model's forward, or None if it cannot be traced. Does not change the model."""
    try:
        with torch.random.fork_rng(devices=[]):
            model = copy.deepcopy(model)  # tracing adds constants to it
            return fx.GraphModule(model, _Tracer().trace(model))
    except Exception:  # user code may raise anything at a proxy
        return None


def activation_of(model: nn.Module) -> Activation:
    """The activation of a network, if it is the same everywhere: from its traced forward, otherwise from its modules.

    Whole expressions count: x sigmoid(x) is SiLU, not a sigmoid. Raises: ValueError if there is none, several, one that
    multiplies another signal (a gate), or only one after the last layer.
    """
    graph = traced(model)
    if graph is None:
        found = [Found(_plain(m), m, True, False) for m in model.modules() if isinstance(m, _MODULES)]
        layers = 0
    else:
        found, layers = expressions(graph)
    kinds = {one.name.lower().replace("()", ""): one.activation for one in found}
    which = ", ".join(sorted(kinds)) or "none"
    if len(kinds) == 1 and any(one.gate for one in found):
        which += ", which multiplies another signal"
    elif len(kinds) == 1 and layers > 1 and not any(one.inner for one in found):
        which += " after the last layer alone"
    elif len(kinds) == 1:
        return next(iter(kinds.values()))
    raise ValueError(f"cannot tell the activation of {type(model).__name__}: found {which}; name it")


# -- expressions -------------------------------------------------------------------------------------------------


def words(text: str) -> frozenset[str]:
    """The names in a text, separated by spaces."""
    return frozenset(text.split())


_MODULES: tuple[type[nn.Module], ...] = tuple(
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
        parts = {node, *_reach([node], lambda n, at=at: [m for m in n.all_input_nodes if source.get(m) is at])}
        if alone is None and (node not in after or not any(_bends(graph, part) for part in parts)):
            continue
        name, activation = alone or (_text(graph, node, at), _composed(graph, parts, at, node))
        gate = any(
            verb(user) in ("mul", "imul", "multiply")
            and any(other is not node and other.op != "get_attr" for other in user.all_input_nodes)
            for user in node.users
        )
        found.append(Found(name, activation, node in before, gate))
    return found, len(layers)


def _composed(graph: fx.GraphModule, parts: set[fx.Node], at: fx.Node, end: fx.Node) -> Activation:
    """The expression of these nodes as a function of `at`."""
    made, attributes, copies = fx.Graph(), dict[str, Any](), dict[fx.Node, fx.Node]()
    copies[at] = made.placeholder("u")
    for node in graph.graph.nodes:
        constant = _constant(graph, node)
        if node is at or not (node in parts or (constant is not None and parts & node.users.keys())):
            continue
        copies[node] = made.node_copy(node, copies.__getitem__)
        if node.op == "call_module":
            attributes[str(node.target)] = copy.deepcopy(graph.get_submodule(str(node.target)))
        elif constant is not None:
            attributes[str(node.target)] = constant
    made.output(copies[end])
    module = fx.GraphModule(attributes, made).cpu().double().eval()

    def composed(u: Tensor) -> Tensor:
        return module(u)

    composed.__name__ = _text(graph, end, at)
    return composed


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
    if node.op == "call_module" and isinstance(module := graph.get_submodule(str(node.target)), _MODULES):
        return _plain(module), module
    if node.op == "call_function" and node.target in _FUNCTIONS:
        assert callable(node.target)
        more, keywords = tuple(node.args[1:]), {k: v for k, v in node.kwargs.items() if k != "inplace"}
        if any(isinstance(one, fx.Node) for one in (*more, *keywords.values())):
            return None
        function = node.target
        name = f"{_spelled(function)}{more or ''}{keywords or ''}"
        return name, (lambda u: function(u, *more, **keywords)) if more or keywords else function
    if node.op == "call_method" and (name := str(node.target).rstrip("_")) in _METHODS:
        return _spelled(_METHODS[name]), _METHODS[name]
    return None


def _plain(module: nn.Module) -> str:
    return repr(module).replace("inplace=True", "")


def _spelled(function: Callable[..., Tensor]) -> str:
    return getattr(function, "__name__", repr(function)).strip("_")


def verb(node: fx.Node) -> str:
    """The function or method that a node calls, without underscores around it; "" for another node."""
    if node.op == "call_method":
        return str(node.target).strip("_")
    return _spelled(node.target) if node.op == "call_function" and callable(node.target) else ""


def _bends(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node of an expression is not linear in its signals, a x + b."""
    if verb(node) not in _LINEAR:
        return True
    signals = [n for n in node.all_input_nodes if _constant(graph, n) is None]
    if verb(node) in ("div", "divide", "true_divide", "truediv") and node.args[0] not in signals:
        return True
    sums = verb(node) in ("add", "iadd", "sub", "isub", "subtract", "rsub")
    return not sums and sum(one in signals for one in (*node.args, *node.kwargs.values())) > 1  # x x


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


def _text(graph: fx.GraphModule, node: Any, at: fx.Node) -> str:
    """An expression as text: mul(tanh(mul(x, 0.66)), 1.7)."""
    if not isinstance(node, fx.Node):
        return f"{node:g}" if isinstance(node, float) else repr(node)
    if node is at:
        return "x"
    constant = _constant(graph, node)
    if constant is not None:
        return f"{float(constant):g}"
    name = type(graph.get_submodule(str(node.target))).__name__ if node.op == "call_module" else verb(node)
    given = [_text(graph, one, at) for one in node.args]
    given += [f"{key}={_text(graph, one, at)}" for key, one in node.kwargs.items()]
    return f"{name}({', '.join(given)})"
