"""What is wrong with a command line. Nothing heavy is imported: `sparsight.cli.entry` needs it to answer at once."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class Misuse(ValueError):
    """The command line asks for what cannot be: an unknown name, a bad value, a folder that is taken."""


class NotFound(LookupError):
    """Data or a network that the command line names is not there."""


def say(text: str, before: str = "") -> None:
    """Tell something on standard error, under the name of the program; a terminal that is gone is told nothing.

    Lines after the first are indented: text from a file cannot pass for a message of its own.
    """
    with contextlib.suppress(OSError):
        sys.stderr.write(before + "\n  ".join(map(printable, f"sparsight: {text}".split("\n"))) + "\n")
        sys.stderr.flush()


def printable(text: str) -> str:
    """As `sparsight.report.escape.printable`, which is loaded only if there is something to spell out."""
    if text.isprintable():
        return text
    from sparsight.report import escape

    return escape.printable(text)


def near(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'sap'?" with up to three close matches, or nothing."""
    by_lower = {name.lower(): name for name in known}
    found = [repr(by_lower[name]) for name in difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.65)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def checked(check: Callable[[Any], None], value: Any) -> None:
    """Misuse for the value of an option that `check` refuses, in its words."""
    try:
        check(value)
    except ValueError as error:
        raise Misuse(f"--{error}") from error


def resolved(spec: str) -> Any:
    """What package.module:attribute names. NotFound if there is no such thing."""
    from sparsight.zoo.resolve import resolve

    try:
        return resolve(spec)
    except ValueError as error:
        raise NotFound(str(error)) from error


def check_outputs(json: bool, **paths: Path | None) -> bool:
    """Whether standard output is left to one of the outputs that options name, and nothing else is to be said there.

    Misuse, before any work is done, for an output that cannot be written, and for two of them in one place.
    """
    from sparsight.records.outputs import check_output, is_standard

    given = {f"--{name}": path for name, path in paths.items() if path is not None}
    there = [name for name, path in given.items() if is_standard(path)]
    if len(there) + json > 1 and there:
        both = ", ".join([*there, *(["--json"] if json else [])])
        raise Misuse(f"standard output can take one of {both}: name a file for the others")
    for name, path in given.items():
        try:
            check_output(path)
        except OSError as error:
            raise Misuse(f"{name} is {path}: {error.strerror}") from error
    return bool(there)
