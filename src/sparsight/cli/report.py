"""`sparsight report RUN`: the page of a run, written again from its records."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

import tyro

from sparsight.cli.options import about, parse
from sparsight.cli.show import opened
from sparsight.runs.execute import write_report


def main(argv: list[str]) -> int:
    run, show = parse({"report": _report}, argv, "sparsight report", about(_report))["report"]
    with opened(run) as folder:
        path = write_report(folder)
    sys.stdout.write(f"{path}\n")
    if show:
        webbrowser.open(path.resolve().as_uri())
    return 0


def _report(run: tyro.conf.Positional[Path], /, *, open: bool = False) -> tuple[Path, bool]:
    """Write report.html of a run again, from its records alone, and print its path.

    Args:
        run: The run folder; the run may be unfinished.
        open: Open the page in the browser.
    """
    return run, open
