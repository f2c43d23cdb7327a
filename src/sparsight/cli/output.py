"""What a command gives: files, then one JSON document or text."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsight.cli.errors import Misuse, print_lines
from sparsight.records.outputs import check_output, is_device, is_standard, write_output
from sparsight.records.record import to_json
from sparsight.report.escape import plain

NAMES = ("out", "csv", "html", "parquet", "maps")
"""Options that name a file to write."""


def check_outputs(asked: Any) -> None:
    """Raise Misuse if an output cannot be written, or if two outputs are standard output."""
    given = _files(asked)
    standard = [f"--{name}" for name, path in given.items() if is_standard(path)]
    standard += ["--json"] if standard and _json(asked) else []
    if len(standard) > 1:
        raise Misuse(f"only one of {', '.join(standard)} can go to standard output: name a file for the others")
    for name, path in given.items():
        try:
            check_output(path)
        except OSError as error:
            raise Misuse(f"cannot write --{name} {path}: {error.strerror}") from error


def check_file(out: Path) -> None:
    """Raise Misuse unless `out` can be written beside what else is in its folder; it may be a folder, for shards."""
    if is_device(out):
        raise Misuse(f"cannot write --out {out}: expected the name of a file, not standard output or a device")
    place = out.parent
    if not place.is_dir():
        raise Misuse(f"cannot write --out {out}: the folder {place} does not exist")


def quiet(asked: Any) -> bool:
    """Whether standard output shows nothing but one of the files."""
    return any(map(is_standard, _files(asked).values()))


def give(
    asked: Any,
    text: Callable[[], str] | None,
    document: Callable[[], Any] = dict,
    *,
    tell_files: bool = False,
    **files: Callable[[], str],
) -> int:
    """Write each file that was asked for; then print the document for --json, otherwise the text, and the exit code 0.

    A file that is standard output stands alone there.
    """
    written = _files(asked)
    for name, make in files.items():
        if name in written:
            write_output(written[name], [make().encode()])
    if _json(asked):
        sys.stdout.write(json.dumps(to_json(document()), indent=2, allow_nan=False) + "\n")
    elif text is not None and not quiet(asked):
        sys.stdout.write(plain(text()) + "\n")
        for path in written.values() if tell_files else ():
            print_lines(f"written: {path}")
    return 0


def _files(asked: Any) -> dict[str, Path]:
    return {name: path for name in NAMES if (path := getattr(asked, name, None)) is not None}


def _json(asked: Any) -> bool:
    return getattr(asked, "json", False)
