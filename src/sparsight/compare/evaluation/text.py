"""An evaluation as a table for the console, with a line per network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparsight.numerics import format as words
from sparsight.report.escape import printable
from sparsight.report.table import grid

_COLUMNS: Mapping[str, Callable[[float], str]] = {
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


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The networks of the rows, run by run; "" without any."""
    networks: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["level"] is not None:
            name = "control" if row["role"] == "control" else str(row["level"])
            of = networks.setdefault((row["run"], name), {"density": row["density"]})
            if row["metric"] in _COLUMNS and (not row["group"] or row["metric"] == "worst_class_accuracy"):
                of[row["metric"]] = row["value"]
    columns = [name for name in _COLUMNS if any(name in of for of in networks.values())]
    heads = ["level", "density", *(_NAMED.get(name, name) for name in columns)]
    lines: list[str] = []
    for run in dict.fromkeys(run for run, _ in networks):
        of_run = {name: of for (at, name), of in networks.items() if at == run}
        cells = [
            [name, words.percent(of["density"])]
            + [_COLUMNS[column](of[column]) if column in of else words.NONE for column in columns]
            for name, of in of_run.items()
        ]
        lines += ["", printable(run), *grid(heads, cells, width=10, ruled=False)]
    return "\n".join(lines[1:])
