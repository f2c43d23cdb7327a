"""The scorers and allocators of the package, found by walking it: a new one is tested once it is there."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import sparsight.pruning


def public_classes() -> list[type]:
    """The public classes of `sparsight.pruning`, each where it is defined."""
    walked = pkgutil.walk_packages(sparsight.pruning.__path__, "sparsight.pruning.")
    modules = [importlib.import_module(info.name) for info in walked]
    return [
        value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and not name.startswith("_")
    ]


def called_with(kind: type) -> list[str]:
    """The names of what an instance is called with; nothing if it cannot be called."""
    call = vars(kind).get("__call__")
    return list(inspect.signature(call).parameters)[1:] if inspect.isfunction(call) else []
