"""Resolves `package.module:attribute`, the name of a user's model or data set."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def resolve(spec: str) -> Any:
    """The object named by "package.module:attribute"; `attribute` may contain dots.

    Adds the current folder to the front of `sys.path`, like `python -m`. Raises: ValueError for another form, an
    unknown module or an unknown attribute; and whatever the module raises while it is imported.
    """
    module_name, colon, attribute = spec.partition(":")
    parts = module_name.split(".") + attribute.split(".")
    if not colon or not all(part.isidentifier() for part in parts):
        raise ValueError(f"expected 'package.module:attribute', got {spec!r}")
    thing = _import(module_name, spec)
    for part in attribute.split("."):
        if not hasattr(thing, part):
            public = sorted(name for name in vars(thing) if not name.startswith("_"))[:12]
            raise ValueError(f"{spec!r}: {module_name} has no {part!r}, only {', '.join(public) or 'nothing'}")
        thing = getattr(thing, part)
    return thing


def required_arguments(function: Callable[..., Any]) -> list[str]:
    """The names of the required arguments of `function`; [] if it has no readable signature."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in optional]


def made(spec: str, found: Any, kind: type[T]) -> T:
    """`found`, named by `spec`, if it is a `kind`; otherwise the result of calling it without arguments.

    Raises: TypeError if that is impossible, or not a `kind`.
    """
    if isinstance(found, kind):
        return found
    if not callable(found):
        got = type(found).__name__
        raise TypeError(f"{spec!r} must be a {kind.__name__} or a function that returns one, got {got}")
    if arguments := required_arguments(found):
        raise TypeError(f"{spec!r} must be callable without arguments, but needs {', '.join(arguments)}")
    made = found()
    if not isinstance(made, kind):
        raise TypeError(f"{spec!r} must return a {kind.__name__}, got {type(made).__name__}")
    return made


def _import(module_name: str, spec: str) -> Any:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()  # the file may be newer than Python's cache
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(missing + "."):
            where = f"the current folder ({here}) and the installed packages"
            raise ValueError(f"cannot import {spec!r}: no module {missing!r} in {where}") from error
        raise  # a missing import of the module itself
