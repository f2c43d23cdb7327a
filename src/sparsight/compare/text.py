"""Comparisons and evaluations on a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparsight.compare.gather import Column, Comparison
from sparsight.numerics import format as words
from sparsight.report.escape import printable, shorten
from sparsight.report.table import grid

WIDTH, MOST = 80, 60
"""Characters per line, and at most this many networks."""

_LATER = (
    "worst class accuracy", "ece", "robust accuracy", "agreement", "packed bytes", "seconds so far", "seed",
)  # fmt: skip
"""Columns by priority after density and metric, shown if they differ and fit."""


def text(found: Comparison) -> str:
    """The chosen networks, or all if none is: the values that differ, as many columns as fit into 80 characters."""
    chosen = [n for n in found.networks if n.values["chosen"] == "yes"]
    shown = (chosen or list(found.networks))[:MOST]
    columns = {column.name: column for column in found.columns}
    rows = [[shorten(printable(n.name.rpartition(", ")[0] if chosen else n.name), 38)] for n in shown]
    judged = sorted(name for name in columns if name.startswith(("test ", "validation ")))
    first = ("density", *([name for name in judged if not name.endswith(" loss")] or judged), *_LATER)
    names, lines = ["network"], grid(["network"], rows, (0,), 10)
    for name in (name for name in first if name in columns):
        more = [[*row, spelled(columns[name], n.values.get(name))] for row, n in zip(rows, shown, strict=True)]
        wider = grid([*names, name], more, (0,), 10)
        if max(map(len, wider)) <= WIDTH:
            names, rows, lines = [*names, name], more, wider
    rest = len(found.networks) + found.left_out - len(shown)
    more = f" ({words.plural(rest, 'more network')} in --csv, --json and the page)" if rest else ""
    return "\n".join([*lines, "", f"{words.plural(len(shown), 'network')}{more}"])


def spelled(column: Column, value: Any) -> str:
    """A value of a column as text."""
    if value is None or value == "":
        return "" if column.kind == "text" else words.NONE
    if column.kind == "text" or isinstance(value, str):
        return str(value)
    if not math.isfinite(value):
        return repr(value)
    shown = {"count": words.count, "bytes": words.bytes_of, "seconds": words.duration}
    shown["share"] = words.percent if column.name == "density" else words.accuracy
    return shown[column.kind](value) if column.kind in shown else f"{value:.4g}"


# -- evaluations --------------------------------------------------------------------------------------------------

_METRICS: Mapping[str, Callable[[float], str]] = {
    "accuracy": words.accuracy,
    "worst_class_accuracy": words.accuracy,
    "nll": lambda x: f"{x:.4f}",
    "ece": words.accuracy,
    "agreement": words.accuracy,
    "robust_accuracy": words.accuracy,
    "mce": lambda x: f"{x:.3f}",
    "packed_bytes": words.bytes_of,
}
"""The metrics that fit into 80 columns, and their formats."""

_NAMED = {"worst_class_accuracy": "worst class", "robust_accuracy": "under corruption", "packed_bytes": "packed"}


def evaluated(rows: Sequence[Mapping[str, Any]]) -> str:
    """The networks of these rows of an evaluation, run by run; "" without any."""
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["level"] is not None:
            name = "control" if row["role"] == "control" else str(row["level"])
            of = runs.setdefault(row["run"], {}).setdefault(name, {"density": row["density"]})
            if row["metric"] in _METRICS and (not row["group"] or row["metric"] == "worst_class_accuracy"):
                of[row["metric"]] = row["value"]
    columns = [name for name in _METRICS if any(name in of for networks in runs.values() for of in networks.values())]
    heads = ["level", "density", *(_NAMED.get(name, name) for name in columns)]
    lines: list[str] = []
    for run, networks in runs.items():
        cells = []
        for name, of in networks.items():
            values = (_METRICS[column](of[column]) if column in of else words.NONE for column in columns)
            cells.append([name, words.percent(of["density"]), *values])
        lines += ["", printable(run), *grid(heads, cells, width=10, ruled=False)]
    return "\n".join(lines[1:])
