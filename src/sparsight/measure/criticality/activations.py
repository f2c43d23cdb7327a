"""Activations by name, and the activation of a network."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from sparsight.measure.criticality.quadrature import Activation
from sparsight.measure.criticality.traced_activations import MODULES, Found, expressions


def _arctan(u: Tensor) -> Tensor:
    return torch.atan(u)


def _linear(u: Tensor) -> Tensor:
    return u * 1.0


NAMED: Mapping[str, Activation] = {
    "relu": F.relu, "leaky-relu": F.leaky_relu, "tanh": torch.tanh, "hardtanh": F.hardtanh, "erf": torch.erf,
    "arctan": _arctan, "softsign": F.softsign, "sin": torch.sin, "elu": F.elu, "selu": F.selu, "gelu": F.gelu,
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
        found = [Found(_plain(repr(m)), m, True, False) for m in model.modules() if isinstance(m, MODULES)]
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


def _plain(text: str) -> str:
    return text.replace("inplace=True", "")
