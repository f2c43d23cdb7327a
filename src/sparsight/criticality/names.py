"""Activations by name, and the one that a network uses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from sparsight.criticality.quadrature import Activation


def _arctan(u: Tensor) -> Tensor:
    return torch.atan(u)


def _linear(u: Tensor) -> Tensor:
    return u * 1.0


NAMED: Mapping[str, Activation] = {
    "relu": F.relu, "leaky-relu": F.leaky_relu, "tanh": torch.tanh, "hardtanh": F.hardtanh, "erf": torch.erf,
    "arctan": _arctan, "softsign": F.softsign, "sin": torch.sin, "elu": F.elu, "selu": F.selu, "gelu": F.gelu,
    "silu": F.silu, "mish": F.mish, "sigmoid": torch.sigmoid, "softplus": F.softplus, "linear": _linear,
}  # fmt: skip
"""The activations that the command line and the recipes know."""

Name = Literal[
    "relu", "leaky-relu", "tanh", "hardtanh", "erf", "arctan", "softsign", "sin", "elu", "selu", "gelu", "silu", "mish",
    "sigmoid", "softplus", "linear",
]  # fmt: skip

_MODULES = (
    nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Hardtanh, nn.Softsign, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid,
    nn.Softplus, nn.CELU, nn.PReLU, nn.ReLU6, nn.Hardswish,
)  # fmt: skip
_FUNCTIONS: tuple[Callable[..., Tensor], ...] = (
    F.relu, F.leaky_relu, F.hardtanh, F.softsign, F.elu, F.selu, F.gelu, F.silu, F.mish, F.softplus, F.celu, F.relu6,
    F.hardswish, F.tanh, F.sigmoid, torch.relu, torch.tanh, torch.erf, torch.atan, torch.sin, torch.sigmoid,
)  # fmt: skip
_METHODS = {"relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "sin": torch.sin, "erf": torch.erf}


class _TensorProxy(fx.Proxy):
    """A proxy that passes for a tensor where the forward, or a checker of its types, asks."""

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
    """The graph of a model's forward, or None where it cannot be traced. The model is not changed."""
    try:
        with torch.random.fork_rng(devices=[]):
            model = copy.deepcopy(model)  # tracing writes constants of the forward into it
            return fx.GraphModule(model, _Tracer().trace(model))
    except Exception:  # whatever foreign code raises at a proxy: it cannot be traced, and that is all we ask
        return None


def activation_of(model: nn.Module) -> Activation:
    """The activation of a network, if it is the same everywhere: from its forward as traced, else from its modules.

    ValueError if none is found, or several; then it has to be given.
    """
    graph = traced(model)
    found: dict[str, Activation] = {}
    for node in graph.graph.nodes if graph is not None else ():
        if node.op == "call_module" and isinstance(module := model.get_submodule(str(node.target)), _MODULES):
            found[repr(module).replace("inplace=True", "")] = module
        elif node.op == "call_function" and node.target in _FUNCTIONS:
            keywords = {key: value for key, value in node.kwargs.items() if key != "inplace"}
            more = tuple(node.args[1:])
            found[f"{_spelled(node.target)}{more or ''}{keywords or ''}"] = _given(node.target, more, keywords)
        elif node.op == "call_method" and node.target in _METHODS:
            found[_spelled(_METHODS[node.target])] = _METHODS[node.target]
    if graph is None:
        found = {repr(m).replace("inplace=True", ""): m for m in model.modules() if isinstance(m, _MODULES)}
    kinds = {name.lower().replace("()", ""): one for name, one in found.items()}
    if len(kinds) != 1:
        got = ", ".join(sorted(kinds)) or "none"
        raise ValueError(f"cannot tell the activation of {type(model).__name__}: found {got}; say which, as activation")
    return next(iter(kinds.values()))


def _spelled(function: Callable[..., Tensor]) -> str:
    return getattr(function, "__name__", repr(function)).removeprefix("_")


def _given(function: Callable[..., Tensor], more: tuple, keywords: dict) -> Activation:
    if not more and not keywords:
        return function
    return lambda u: function(u, *more, **keywords)


__all__ = ["NAMED", "Name", "activation_of", "traced"]
