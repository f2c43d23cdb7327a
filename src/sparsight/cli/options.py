"""Options of a command, made from the typed signatures and the docstrings of functions."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import tyro

from sparsight.cli.errors import Misuse, near


def parse(groups: Mapping[str, Callable[..., Any]], argv: Sequence[str], prog: str, description: str) -> dict[str, Any]:
    """What each function of `groups` returns for its share of `argv`, by the name of the group.

    Every parameter is an option, documented by the function's docstring; the help shows a box for each group.
    SystemExit after help, or after a bad value was explained; Misuse, with close matches, for an unknown option.
    """
    _check(groups, argv, prog)
    if len(groups) == 1:  # one box, and what the function does is said once
        ((name, only_one),) = groups.items()
        return {name: tyro.cli(only_one, prog=prog, description=description, args=list(argv))}

    def build(**values: Any) -> dict[str, Any]:
        return values

    kinds = {name: Annotated[Any, tyro.conf.arg(name=name, constructor=made)] for name, made in groups.items()}
    only = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, only, annotation=kind) for name, kind in kinds.items()]
    build.__signature__ = inspect.Signature(parameters)
    build.__annotations__ = kinds
    config = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(build, prog=prog, description=description, args=list(argv), config=config)


def about(function: Callable[..., Any]) -> str:
    """The docstring of a function without its Args: what it does."""
    return (inspect.getdoc(function) or "").partition("\nArgs:\n")[0].strip()


def keywords(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """A function with the same signature and docstring that only returns the arguments it is given."""

    @functools.wraps(function)
    def given(**arguments: Any) -> dict[str, Any]:
        return arguments

    return given


def _check(groups: Mapping[str, Callable[..., Any]], argv: Sequence[str], prog: str) -> None:
    """Misuse for the first word that looks like an option and is none."""
    flags = {"--help", *(flag for function in groups.values() for flag in _flags(function))}
    for word in argv:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and len(flag) > 2 and flag not in flags:
            raise Misuse(f"unknown option {flag!r}{near(flag, flags) or f'; {prog} --help lists them'}")


def _flags(function: Callable[..., Any]) -> set[str]:
    """Every option that the parameters of `function` make."""
    hints = typing.get_type_hints(inspect.unwrap(function))
    names = [name.replace("_", "-") for name in inspect.signature(function).parameters]
    switches = [name.replace("_", "-") for name, kind in hints.items() if _is_bool(kind)]
    return {f"--{name}" for name in names} | {f"--no-{name}" for name in switches}


def _is_bool(kind: Any) -> bool:
    unions = (typing.Union, types.UnionType)
    return kind is bool or (typing.get_origin(kind) in unions and bool in typing.get_args(kind))


__all__ = ["about", "keywords", "parse"]
