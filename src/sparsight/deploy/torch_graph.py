"""The operations in a graph of torch.export: their names and arguments."""

from __future__ import annotations

from typing import Any

from torch import fx


def name_of(node: fx.Node) -> tuple[str, bool]:
    """The name of a node's operation, and whether it works in place (`relu_`)."""
    name = str(node.target).removeprefix("aten.").split(".")[0]
    return name.removesuffix("_"), name.endswith("_")


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a node by their names in torch's schema and in its order, with defaults."""
    target: Any = node.target
    known = target._schema.arguments
    defaults = {a.name: a.default_value if a.has_default_value() else None for a in known}
    return defaults | dict(zip(defaults, node.args, strict=False)) | dict(node.kwargs)
