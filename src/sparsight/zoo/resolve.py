"""`package.module:attribute`: how the command line names a model or a data set that is not ours, and what it makes."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def resolve(spec: str) -> Any:
    """The object that "package.module:attribute" names; `attribute` may have dots of its own.

    The current folder is put in front of `sys.path` and stays there, as for `python -m`: the object may
    import its neighbours later. What the module itself raises while it is imported is not caught.
    ValueError if the spec is not of that form, no such module is found, or it has no such attribute.
    """
    module_name, colon, attribute = spec.partition(":")
    parts = module_name.split(".") + attribute.split(".")
    if not colon or not all(part.isidentifier() for part in parts):
        raise ValueError(f"expected 'package.module:attribute', got {spec!r}")
    thing = _import(module_name, spec)
    for part in attribute.split("."):
        if not hasattr(thing, part):
            public = sorted(name for name in vars(thing) if not name.startswith("_"))[:12]
            raise ValueError(f"{spec!r}: no {part!r} in {module_name}, which has {', '.join(public) or 'nothing'}")
        thing = getattr(thing, part)
    return thing


def required_arguments(function: Callable[..., Any]) -> list[str]:
    """Names of the arguments that `function` cannot be called without; [] if it has no readable signature."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in optional]


def made(spec: str, found: Any, kind: type[T]) -> T:
    """`found`, which `spec` names, if it is of the kind; else what it makes when called without arguments.

    TypeError if that is of another kind, or `found` cannot be called so.
    """
    if isinstance(found, kind):
        return found
    if not callable(found):
        got = type(found).__name__
        raise TypeError(f"{spec!r} is of type {got}: expected a {kind.__name__}, or a function that makes one")
    if arguments := required_arguments(found):
        raise TypeError(f"{spec!r} needs the arguments {', '.join(arguments)}: expected a function that needs none")
    made = found()
    if not isinstance(made, kind):
        raise TypeError(f"{spec!r} made a {type(made).__name__}: expected a {kind.__name__}")
    return made


def _import(module_name: str, spec: str) -> Any:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()  # the file may be younger than Python's look at the folder
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(missing + "."):
            where = f"the current folder ({here}) and the installed packages"
            raise ValueError(f"cannot import {spec!r}: no module {missing!r} in {where}") from error
        raise  # found, but something that it imports is missing: its own error says what
