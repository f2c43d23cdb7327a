"""Write the tables of options into the pages, from the signatures that the command line is made of.

    python docs/options.py

A table stands between `<!-- options: NAME -->` and `<!-- end -->`. NAME is a recipe or a command; `NAME: rate scope`
gives some of its options. `reference()` is the page of the whole command line, which MkDocs asks for (hooks.py).
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from typing_extensions import Doc
from tyro import conf

from sparsight.cli import entry
from sparsight.cli.options import Switch, told_of
from sparsight.cli.recipes import names

DOCS = Path(__file__).resolve().parent
COMMANDS = {name: f"{room or 'run'}_options" for name, room in entry.COMMANDS.items() if name != "recipes"}
POSITIONAL = typing.get_args(conf.Positional[str])[1]
SWITCH = typing.get_args(Switch)[1:]
TABLE = re.compile(r"(<!-- options: ([\w ]+(?:: [\w ]+)?) -->\n).*?(<!-- end -->)", re.DOTALL)


def maker_of(name: str) -> Callable[..., Any]:
    """What makes the options of a recipe or a command: a function of them, or a dataclass."""
    if name not in COMMANDS:
        return getattr(importlib.import_module(f"sparsight.recipes.{name}"), name)
    module = vars(importlib.import_module(f"sparsight.cli.{COMMANDS[name]}"))
    return next(module[known] for known in (f"{name.capitalize()}Options", f"_{name}") if known in module)


def rows(maker: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Name and row of each option: its flags, its default, its help and the words that it takes; arguments first."""
    hints = typing.get_type_hints(maker, include_extras=True)
    told = told_of(maker)
    for name, parameter in inspect.signature(maker).parameters.items():
        kind, given = hints[name], parameter.default
        about = getattr(kind, "__metadata__", ())
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            continue
        help = next((x.documentation for x in about if isinstance(x, Doc)), told.get(name))
        if not help:
            raise ValueError(f"{maker.__name__} does not say what {name} is")
        dashed = name.replace("_", "-")
        flags = f"`--{dashed}`, `--no-{dashed}`" if given is True else f"`--{dashed}`"
        if given is True and set(SWITCH) <= set(about):
            flags = f"`--no-{dashed}`"
        flags = f"`{name.upper()}`" if POSITIONAL in about else flags
        values = ", ".join(f"`{word}`" for word in words(kind))
        meaning = f"{help} ({values})" if values else help
        yield name, f"| {flags} | {default(given)} | {meaning.replace('|', chr(92) + '|')} |"


def words(kind: Any) -> list[str]:
    """The words that a type takes: those of its literals."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return [str(part) for part in parts]
    if origin is typing.Annotated:
        return words(parts[0])
    if origin in (typing.Union, types.UnionType):
        return [word for part in parts for word in words(part)]
    return []


def default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value == ():
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(marker: str) -> str:
    """The table for a marker: the options of a recipe or command, or those of them that it names after a colon."""
    name, _, asked = marker.partition(": ")
    found = dict(rows(maker_of(name)))
    if not asked:
        asked = " ".join(option for option, row in found.items() if row.startswith("| `--"))
    chosen = [found[option] for option in asked.split()]
    return "\n".join(["", "| Option | Default | Meaning |", "| --- | --- | --- |", *chosen, "", ""])


def written(page: str) -> str:
    """The text of a page with its tables made anew."""
    return TABLE.sub(lambda found: found[1] + table(found[2]) + found[3], page)


def reference() -> str:
    """Every command and every recipe, each with its docstring, arguments and options."""
    parts = []
    for command in entry.COMMANDS:
        if command not in COMMANDS:
            continue
        parts += [f"## sparsight {command}", *described(command)]
        if command == "run":
            for recipe in names():
                parts += [f"### run {recipe}", *described(recipe.replace("-", "_"))]
    return "\n\n".join(parts)


def described(name: str) -> Iterator[str]:
    """The docstring of a recipe or command without its Args, and the table of all that it takes."""
    maker = maker_of(name)
    yield (inspect.getdoc(maker) or "").partition("\nArgs:\n")[0]
    yield table(f"{name}: {' '.join(option for option, _ in rows(maker))}")


def main() -> None:
    for path in sorted(DOCS.rglob("*.md")):
        before = path.read_text()
        after = written(before)
        if after != before:
            path.write_text(after)
            sys.stdout.write(f"{path.relative_to(DOCS)}\n")


if __name__ == "__main__":
    main()
