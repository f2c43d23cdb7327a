"""Errors and lines of the command line. Imports nothing heavy, because `sparsight.cli.entry` must start fast."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any


class Misuse(ValueError):
    """A wrong command line: an unknown name, a bad value, or an output folder that is in use."""


class NotFound(LookupError):
    """Data, a file or a network that does not exist."""


CODES = {  # by name, to import nothing
    "sparsight.cli.errors.Misuse": 2,
    "sparsight.deploy.network_of_run.Unnamed": 2,
    "sparsight.runs.study.file.StudyFileError": 2,
    "sparsight.records.files.DamagedFile": 3,
    "sparsight.records.identity.ForeignRun": 3,
    "sparsight.records.new_folder.LockedRun": 3,
    "sparsight.checkpoint.entry.CheckpointError": 3,
    "sparsight.cli.errors.NotFound": 4,
    "sparsight.zoo.data.mnist_family.DataNotFound": 4,
    "sparsight.zoo.data.published.DownloadError": 4,
}


def exit_code(error: BaseException) -> int:
    """The exit code of an error: 1 unless the help lists another."""
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((CODES[name] for name in names if name in CODES), 1)


@contextlib.contextmanager
def refusing(*kinds: type[Exception], make: type[Exception] = Misuse, form: str = "{}") -> Iterator[None]:
    """Turn errors of these kinds, by default ValueError, into `make`; those with an exit code of their own stay."""
    caught = kinds or (ValueError,)
    try:
        yield
    except caught as error:
        if exit_code(error) != 1:
            raise
        raise make(form.format(error)) from error


def say(text: str, before: str = "") -> None:
    """Write a message to standard error, prefixed "sparsight: "; ignores a closed terminal.

    Later lines are indented: text from a file cannot pose as another message.
    """
    with contextlib.suppress(OSError):
        sys.stderr.write(before + "\n  ".join(map(printable, f"sparsight: {text}".split("\n"))) + "\n")
        sys.stderr.flush()


def print_lines(*lines: str) -> None:
    """Write lines to standard output, each made printable."""
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))


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


def checked(check: Callable[..., None], *accepted: Any, **options: Any) -> None:
    """Raise Misuse if `check(*accepted, name=value)` refuses the value of an option, or one of its values."""
    for name, value in options.items():
        for one in value if isinstance(value, tuple) else () if value is None else (value,):
            with refusing(form="--{}"):
                check(*accepted, **{name.replace("_", "-"): one})


def resolved(spec: str, make: type[Exception] = NotFound) -> Any:
    """The object that package.module:attribute names. Raises: `make`."""
    from sparsight.zoo.resolve import resolve

    with refusing(make=make):
        return resolve(spec)
