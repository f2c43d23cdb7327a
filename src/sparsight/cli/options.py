"""Options of a command, made from the typed fields of a dataclass or the typed parameters of a function.

The help of an option is its `Doc`, the text below its field, or in the Args of the docstring.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, near

T = TypeVar("T")
_NARROWEST = 20

Switch = conf.FlagCreatePairsOff[bool]
"""An option that is off unless named."""

SWITCH, POSITIONAL = typing.get_args(Switch)[1], typing.get_args(conf.Positional[str])[1]

LevelNumber = Annotated[int | None, Doc("Level of a run. Default: the chosen one, otherwise the last.")]
ModelName = Annotated[
    str | None, Doc("The network: a name of the zoo, or package.module:attribute. Runs on zoo networks do not need it.")
]
DataName = Annotated[
    str | None,
    Doc("The data: fashion-mnist, mnist, digits, or package.module:attribute. Runs on these data sets do not need it."),
]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], Doc("The device; auto uses an accelerator if there is one.")]
Precision = Annotated[Literal["no", "bf16", "fp16"], Doc("Mixed precision for training; no is float32.")]
WhichLevels = Annotated[
    Literal["all", "packed", "chosen", "last"],
    Doc(
        "Which levels' weights to keep on disk after the run; packed keeps all of them in packed files. Masks and "
        "records always stay."
    ),
]
Runs = Annotated[conf.Positional[tuple[Path, ...]], Doc("Run folders, or folders of a study.")]
Json = Annotated[Switch, Doc("Print one JSON document instead.")]
File = Annotated[Path | None, conf.arg(metavar="FILE")]
OutFile = Annotated[Path, conf.arg(aliases=("-o",), metavar="FILE")]


def options(kind: type[T], argv: Sequence[str], prog: str) -> T:
    """The dataclass `kind` from a command line: each field is an option.

    The help begins with its `about`, by default its docstring. Raises: Misuse for an unknown option or a bad value;
    SystemExit after --help.
    """
    _check([kind], argv, prog)
    values = _ask(_shown(kind), argv, prog, getattr(kind, "about", None) or inspect.getdoc(kind) or "")
    _check_numbers(values)
    return kind(**values)


def parse(
    groups: Mapping[str, Callable[..., Any]], argv: Sequence[str], prog: str, description: str
) -> dict[str, dict[str, Any]]:
    """The values of the parameters of each function or dataclass in `groups`; the help shows one box per group.

    Every parameter is an option. Raises: as `options`.
    """
    _check(groups.values(), argv, prog)
    if twice := set.intersection(*map(_flags, groups.values())):
        raise Misuse(f"{prog} has {', '.join(sorted(twice))} already: rename the parameter of the recipe")

    def build(**values: Any) -> dict[str, Any]:
        return values

    kinds = {name: Annotated[Any, conf.arg(name=name, constructor=_shown(made))] for name, made in groups.items()}
    _sign(build, [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kinds[name]) for name in kinds])
    found = _ask(build, argv, prog, description)
    for values in found.values():
        _check_numbers(values)
    return found


def _ask(make: Callable[..., dict[str, Any]], argv: Sequence[str], prog: str, description: str) -> dict[str, Any]:
    """What `make` returns for a command line."""
    config = (conf.OmitArgPrefixes, conf.PositionalMetavarFromFieldName)
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box), _wide_enough():
            return tyro.cli(make, prog=prog, description=description, args=list(argv), config=config)
    except SystemExit as error:
        if not error.code:
            raise
        raise Misuse(f"{_one_line(box.getvalue())}; {prog} --help lists the options") from None


@contextlib.contextmanager
def _wide_enough() -> Iterator[None]:
    """Show tyro a terminal of at least `_NARROWEST` columns: below ten it never ends."""
    before = os.environ.get("COLUMNS")
    if shutil.get_terminal_size().columns < _NARROWEST:
        os.environ["COLUMNS"] = str(_NARROWEST)
    try:
        yield
    finally:
        os.environ.pop("COLUMNS", None)
        if before is not None:
            os.environ["COLUMNS"] = before


def _shown(maker: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """A function that returns the arguments of `maker`: with short names of types, no default None, off or empty."""
    hints, told = typing.get_type_hints(inspect.unwrap(maker), include_extras=True), told_of(maker)

    def make(**values: Any) -> dict[str, Any]:
        return values

    parameters = []
    for name, parameter in inspect.signature(maker).parameters.items():
        default = parameter.default
        hint = "" if default is None or default is False or default == () else "Default: {}.".format
        kind, *about = typing.get_args(hints[name]) if typing.get_origin(hints[name]) is Annotated else (hints[name],)
        metavar = None if POSITIONAL in about else _metavar(kind)  # of which tyro shows the name
        if default is True:  # a switch that is on shows only --no-...
            hint = "" if SWITCH in about else "Default: on."
        shown = conf.arg(metavar=metavar, help=told.get(name), help_behavior_hint=hint)
        parameters.append(parameter.replace(annotation=Annotated[(kind, shown, *about)]))
    _sign(make, parameters)
    return make


def told_of(maker: Callable[..., Any]) -> dict[str, str]:
    """The help of options outside their types: the Args of a docstring, and texts below the fields of a dataclass."""
    arguments = (inspect.getdoc(maker) or "").partition("\nArgs:\n")[2]
    found = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE)
    found = {name: " ".join(text.split()) for name, text in found}
    for kind in reversed(maker.__mro__[:-1]) if inspect.isclass(maker) else ():
        try:
            (made,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        except OSError:  # installed without sources: the help goes, the options work
            continue
        for field, text in pairwise(getattr(made, "body", ())):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(told))):
                    found[name] = " ".join(told.split())
    return found


def _sign(function: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> None:
    function.__signature__ = inspect.Signature(parameters)
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def _metavar(kind: Any) -> str | None:
    """What stands for a value in the help, None to let tyro say it: "N" for `int | None`, "N ..." for many."""
    kind = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        words = [_metavar(one) for one in typing.get_args(kind) if one is not types.NoneType]
        return words[0] if len(words) == 1 else None
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(map(str, typing.get_args(kind))) + "}"
    if typing.get_origin(kind) is tuple:
        return f"{_metavar(typing.get_args(kind)[0])} ..." if typing.get_args(kind)[1:] == (...,) else None
    return {int: "N", float: "X", str: "NAME", Path: "PATH"}.get(kind)


def _one_line(box: str) -> str:
    """An error of tyro's as one line, worded like all other errors."""
    plain = re.sub(r"\x1b\[[\d;]*m|│", lambda found: " " * (found[0] == "│"), box)
    lines = [line[2:].rstrip() for line in plain.split("\n")]
    lines = lines[1 + (set(lines[1]) == {"-"}) :]  # after the title, which without UTF-8 is underlined
    rule = next((n for n, line in enumerate(lines) if re.match("──|--+$", line)), len(lines))
    said = " ".join(map(str.strip, lines[:rule]))
    if found := re.match(r"Error parsing ([^\s:/]+).*?: (?:.*?\[(.*?)\]|.*: ('.*'))", said):
        shown = next((line.strip() for line in lines[rule:] if line.strip().startswith(found[1])), found[1])
        kinds = {"N": "a whole number", "X": "a number", "X ...": "numbers", "N ...": "whole numbers"}
        shown = shown.removeprefix(found[1]).strip()
        kind = kinds.get(shown, f"of the form {shown}")
        return f"{found[1]} must be {kind}, got {found[2] or found[3]}"
    if found := re.match(r"invalid choice (.*) for argument '(.*?)'\. Expected one of \((.*?),?\)\.", said):
        choices = sorted(set(re.findall(r"'(.*?)'", found[3])) - {"None"})
        return f"{found[2]} must be one of {', '.join(choices)}, got {found[1]}"
    if found := re.match(r"Missing value for argument '(.*?)'", said):
        return f"{found[1]} needs a value"
    if said.startswith("Missing from"):
        return f"missing {', '.join(line.strip() for line in lines[:rule] if re.match(r' {4}[^ ]', line))}"
    return re.sub(r"^Unrecognized options: (.*)$", r"unexpected argument '\1'", said)


def as_typed(message: str, names: Iterable[str]) -> str:
    """A message with the names of parameters written as options: --p=2.0, --target-density must be at least 0.

    Only names with an underscore, before =, or at the beginning are replaced: others may be ordinary words.
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
    """Why `found` cannot make a `kind` from options, judged by its signature; None if it can."""
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
            return f"takes {name!r}, which cannot be given as an option"
    return None


def _check(makers: Iterable[Callable[..., Any]], argv: Sequence[str], prog: str) -> None:
    """Raise Misuse for the first unknown option."""
    flags = {"--help", *(flag for maker in makers for flag in _flags(maker))}
    for word in argv:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and len(flag) > 2 and flag not in flags:
            raise Misuse(f"unknown option {flag!r}{near(flag, flags) or f'; {prog} --help lists them'}")


def _check_numbers(values: Mapping[str, Any]) -> None:
    """Raise Misuse for NaN, which no option takes."""
    for name, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and number != number:
                raise Misuse(f"--{name.replace('_', '-')} must be a number, got nan")


def _flags(maker: Callable[..., Any]) -> set[str]:
    """The options of a function or a dataclass."""
    hints = typing.get_type_hints(inspect.unwrap(maker))
    names = [name.replace("_", "-") for name in inspect.signature(maker).parameters]
    switches = [name.replace("_", "-") for name, kind in hints.items() if bool in (kind, *typing.get_args(kind))]
    return {f"--{name}" for name in names} | {f"--no-{name}" for name in switches}
