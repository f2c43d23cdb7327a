"""A comparison on a terminal."""

from __future__ import annotations

from sparsight.compare.gather import Comparison
from sparsight.compare.page import spelled
from sparsight.numerics import format as words
from sparsight.report.escape import printable, shorten
from sparsight.report.table import grid

WIDTH, MOST = 80, 60
"""Characters per line, and at most this many networks."""

_FIRST = (
    "density", "test accuracy", "validation accuracy", "worst class accuracy", "ece", "robust accuracy", "agreement",
    "packed bytes", "seconds so far", "seed",
)  # fmt: skip
"""Columns by priority, shown if they differ and fit."""


def text(found: Comparison) -> str:
    """The chosen networks, or all if none is: the values that differ, as many columns as fit into 80 characters."""
    chosen = [n for n in found.networks if n.values["chosen"] == "yes"]
    shown = (chosen or list(found.networks))[:MOST]
    columns = {column.name: column for column in found.columns}
    rows = [[shorten(printable(n.name.rpartition(", ")[0] if chosen else n.name), 38)] for n in shown]
    names, lines = ["network"], grid(["network"], rows, (0,), 10)
    for name in (name for name in _FIRST if name in columns):
        more = [[*row, spelled(columns[name], n.values.get(name))] for row, n in zip(rows, shown, strict=True)]
        wider = grid([*names, name], more, (0,), 10)
        if max(map(len, wider)) <= WIDTH:
            names, rows, lines = [*names, name], more, wider
    rest = len(found.networks) + found.left_out - len(shown)
    more = f" ({words.plural(rest, 'more network')} in --csv, --json and the page)" if rest else ""
    return "\n".join([*lines, "", f"{words.plural(len(shown), 'network')}{more}"])
