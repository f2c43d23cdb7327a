"""Errors of the command line. Imports nothing heavy, because `sparsight.cli.entry` must start fast."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class Misuse(ValueError):
    """A wrong command line: an unknown name, a bad value, or an output folder that is in use."""


class NotFound(LookupError):
    """Data, a file or a network that does not exist."""


def say(text: str, before: str = "") -> None:
    """Write a message to standard error, prefixed "sparsight: "; ignores a closed terminal.

    Later lines are indented: text from a file cannot pose as another message.
    """
    with contextlib.suppress(OSError):
        sys.stderr.write(before + "\n  ".join(map(printable, f"sparsight: {text}".split("\n"))) + "\n")
        sys.stderr.flush()


def printable(text: str) -> str:
    """`sparsight.report.escape.printable`, imported only if needed."""
    if text.isprintable():
        return text
    from sparsight.report import escape

    return escape.printable(text)


def near(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'sap'?" with up to three close matches, otherwise ""."""
    by_lower = {name.lower(): name for name in known}
    found = [repr(by_lower[name]) for name in difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.65)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def checked(check: Callable[[Any], None], value: Any) -> None:
    """Raise Misuse if `check` refuses the value of an option."""
    try:
        check(value)
    except ValueError as error:
        raise Misuse(f"--{error}") from error


def resolved(spec: str) -> Any:
    """The object that package.module:attribute names. Raises: NotFound."""
    from sparsight.zoo.resolve import resolve

    try:
        return resolve(spec)
    except ValueError as error:
        raise NotFound(str(error)) from error


def check_outputs(json: bool, **paths: Path | None) -> bool:
    """Whether one of the outputs is standard output, which must then show nothing else.

    Raises: Misuse if an output cannot be written, or if two outputs are standard output.
    """
    from sparsight.records.outputs import check_output, is_standard

    given = {f"--{name}": path for name, path in paths.items() if path is not None}
    standard = [name for name, path in given.items() if is_standard(path)]
    if len(standard) + json > 1 and standard:
        both = ", ".join([*standard, *(["--json"] if json else [])])
        raise Misuse(f"only one of {both} can go to standard output: name a file for the others")
    for name, path in given.items():
        try:
            check_output(path)
        except OSError as error:
            raise Misuse(f"cannot write {name} {path}: {error.strerror}") from error
    return bool(standard)
