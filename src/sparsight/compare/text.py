"""A comparison on a terminal."""

from __future__ import annotations

from sparsight.compare.gather import Comparison
from sparsight.compare.page import spelled
from sparsight.numerics import format as words
from sparsight.report.escape import printable
from sparsight.report.table import stacked

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
    names = [name for name in _FIRST if name in columns]
    grid = [[printable(n.name.rpartition(", ")[0] if chosen else n.name) for n in shown]]
    grid[0] = [name if len(name) <= 38 else f"{name[:18]}…{name[-19:]}" for name in grid[0]]
    heads = stacked(["network", *names], 10)
    made, width = [heads[0] + grid[0]], max(map(len, heads[0] + grid[0]), default=0)
    for name, head in zip(names, heads[1:], strict=True):
        cells = [spelled(columns[name], n.values.get(name)) for n in shown]
        if width + 2 + max(map(len, head + cells)) <= WIDTH:
            made.append(head + cells)
            width += 2 + max(map(len, head + cells))
    sides = [max(map(len, column)) for column in made]
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, sides, strict=True)))
        for row in zip(*made, strict=True)
    ]
    lines.insert(len(heads[0]), "  ".join("-" * w for w in sides))
    rest = len(found.networks) + found.left_out - len(shown)
    more = f" ({words.plural(rest, 'more network')} in --csv, --json and the page)" if rest else ""
    return "\n".join([*(line.rstrip() for line in lines), "", f"{words.plural(len(shown), 'network')}{more}"])
