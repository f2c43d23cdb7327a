"""The operations in a graph of torch.export: their handlers and arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import fx

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


def handler_of(node: fx.Node, handlers: Mapping[str, _Handler]) -> tuple[str, _Handler | None]:
    """The name of a node's operation, which ends with "_" if it works in place, and the handler for it, if any."""
    name = str(node.target).removeprefix("aten.").split(".")[0]
    return name, handlers.get(name) or handlers.get(name.removesuffix("_"))


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a node by their names in torch's schema and in its order, with defaults."""
    target: Any = node.target
    known = target._schema.arguments
    defaults = {a.name: a.default_value if a.has_default_value() else None for a in known}
    return defaults | dict(zip(defaults, node.args, strict=False)) | dict(node.kwargs)
