"""Options of a command, made from the typed fields of a dataclass or the typed parameters of a function."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, near

T = TypeVar("T")

Switch = conf.FlagCreatePairsOff[bool]
"""An option that is on if it is named."""


LEVEL = Annotated[
    int | None, conf.arg(metavar="N"), Doc("Which level of a run. Default: the chosen one, or else the last.")
]


@dataclass(frozen=True, kw_only=True)
class OfNetwork:
    """Which network of a run or a checkpoint, and its data."""

    level: LEVEL = None
    model: Annotated[
        str | None, Doc("The network: a name of the zoo, or package.module:attribute. A run knows those of the zoo.")
    ] = None
    data: Annotated[
        str | None,
        Doc("Its data: fashion-mnist, mnist, digits, or package.module:attribute. A run knows those of the zoo."),
    ] = None


def options(kind: type[T], argv: Sequence[str], prog: str, description: str = "") -> T:
    """The dataclass `kind`, filled from a command line: every field is an option, `Doc` says what it does.

    The description is the docstring of `kind` unless another is given. SystemExit after help, or after a bad value was
    explained; Misuse, with close matches, for an unknown option.
    """
    _check([kind], argv, prog)
    found = tyro.cli(kind, prog=prog, description=description or inspect.getdoc(kind), args=list(argv))
    _check_numbers(vars(found))
    return found


def parse(groups: Mapping[str, Callable[..., Any]], argv: Sequence[str], prog: str, description: str) -> dict[str, Any]:
    """What each function of `groups` returns for its share of `argv`, by the name of the group.

    Every parameter is an option, documented by `Doc` or the function's docstring; the help shows a box for each group.
    Errors as of `options`.
    """
    _check(groups.values(), argv, prog)

    def build(**values: Any) -> dict[str, Any]:
        return values

    kinds = {name: Annotated[Any, conf.arg(name=name, constructor=made)] for name, made in groups.items()}
    only = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, only, annotation=kind) for name, kind in kinds.items()]
    build.__signature__ = inspect.Signature(parameters)
    build.__annotations__ = kinds
    config = (conf.OmitArgPrefixes,)
    found = tyro.cli(build, prog=prog, description=description, args=list(argv), config=config)
    for group in found.values():
        _check_numbers(group if isinstance(group, Mapping) else vars(group))
    return found


def about(function: Callable[..., Any]) -> str:
    """The docstring of a function without its Args: what it does."""
    return (inspect.getdoc(function) or "").partition("\nArgs:\n")[0].strip()


def keywords(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """A function with the same signature and docstring that only returns the arguments it is given."""

    @functools.wraps(function)
    def given(**arguments: Any) -> dict[str, Any]:
        return arguments

    return given


def as_typed(message: str, names: Iterable[str]) -> str:
    """A message about parameters with their names as they are typed: --p=2.0, --target-density must be at least 0.

    Words that are names too are left alone: replaced are names with an underscore, those before =, and those that begin
    the message.
    """
    any_of = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    if not any_of:
        return message
    place = rf"(?<![\w.\-])({any_of})(?![\w(.\-]|==)"

    def typed(found: re.Match[str]) -> str:
        plain = "_" not in found[0] and found.start() and not message.startswith("=", found.end())
        return found[0] if plain else f"--{found[0].replace('_', '-')}"

    return re.sub(place, typed, message)


def why_no_maker(found: Any, kind: type) -> str | None:
    """Why a thing cannot make a `kind` from options, as far as its signature tells; None if it may."""
    if inspect.isclass(found) or not callable(found):
        return "is a class" if inspect.isclass(found) else f"is of type {type(found).__name__}"
    hints = typing.get_type_hints(inspect.unwrap(found))
    made = hints.get("return", kind)
    if inspect.isclass(made) and not issubclass(made, kind):
        return f"returns a {made.__name__}"
    for name, parameter in inspect.signature(found).parameters.items():
        takes, given = hints.get(name, Any), parameter.default
        required = given is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if required and (takes is Any or (inspect.isclass(takes) and not issubclass(takes, (str, int, float, Path)))):
            return f"takes {name!r}, which no option can give"
    return None


def _check(makers: Iterable[Callable[..., Any]], argv: Sequence[str], prog: str) -> None:
    """Misuse for the first word that looks like an option and is none."""
    flags = {"--help", *(flag for maker in makers for flag in _flags(maker))}
    for word in argv:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and len(flag) > 2 and flag not in flags:
            raise Misuse(f"unknown option {flag!r}{near(flag, flags) or f'; {prog} --help lists them'}")


def _check_numbers(values: Mapping[str, Any]) -> None:
    """Misuse for an option that is not a number where one is meant: no option takes NaN."""
    for name, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and number != number:
                raise Misuse(f"--{name.replace('_', '-')} must be a number, got nan")


def _flags(maker: Callable[..., Any]) -> set[str]:
    """Every option that the parameters of a function, or the fields of a dataclass, make."""
    hints = typing.get_type_hints(inspect.unwrap(maker))
    names = [name.replace("_", "-") for name in inspect.signature(maker).parameters]
    switches = [name.replace("_", "-") for name, kind in hints.items() if _is_bool(kind)]
    return {f"--{name}" for name in names} | {f"--no-{name}" for name in switches}


def _is_bool(kind: Any) -> bool:
    unions = (typing.Union, types.UnionType)
    return kind is bool or (typing.get_origin(kind) in unions and bool in typing.get_args(kind))
